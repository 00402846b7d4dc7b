"""The floor's statement, sent through a gRPC server: what any service of this kind in Python has to pay."""

import asyncio
from typing import Any

import grpc
from agent_sessions.v1 import session_pb2
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_service_pb2_grpc import SessionServiceStub

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Access, Description, key, package_versions
from benchmarks.stores.floor import FloorStore

KEEPS = "the messages; no revisions, no events, no request ids"


class RelayStore(FloorStore):
    """One stream; whatever waits goes into the next frame."""

    def describe(self) -> Description:
        """Tell what this is."""
        return self._description("over a stream", "frames over one stream, a statement for each frame")

    def _description(self, title: str, setup: str) -> Description:
        return Description(
            title=f"the floor's statement through a gRPC server, {title}",
            version=package_versions("asyncpg", "grpcio", "protobuf"),
            setup=f"a server process (benchmarks.relay) with a pool of {CONNECTIONS}, gRPC on loopback; {setup}",
            keeps=KEEPS,
        )

    async def open(self, access: Access) -> None:
        """Connect to the server; the floor's own pool is for reading back."""
        await super().open(access)
        self._channel = grpc.aio.insecure_channel(access.target)
        self._stub: Any = SessionServiceStub(self._channel)
        self._stream: Any = None
        self._waiting: list[pb.SaveSessionRequest] = []
        self._answers: dict[str, asyncio.Future[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = False
        self._count = 0

    async def save(self, conversation: Conversation, index: int) -> None:
        """Send one message in the next frame."""
        if self._stream is None:
            self._stream = self._stub.SaveSessions()
            self._run(self._read())
        self._count += 1
        request = _request(conversation, index, str(self._count))
        answer = self._answers[request.request_id] = asyncio.get_running_loop().create_future()
        self._waiting.append(request)
        if not self._writing:
            self._writing = True
            self._run(self._write())
        await answer

    async def close(self) -> None:
        """Disconnect."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._channel.close()
        await super().close()

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            for answer in self._answers.values():
                answer.set_exception(error)

    async def _write(self) -> None:
        while self._waiting:
            requests, self._waiting = self._waiting, []
            await self._stream.write(pb.SaveSessionsRequest(saves=[pb.FramedSave(request=one) for one in requests]))
        self._writing = False

    async def _read(self) -> None:
        async for frame in self._stream:
            for result in frame.results:
                self._answers.pop(result.request_id).set_result(None)


class RelayUnaryStore(RelayStore):
    """A call per save."""

    def describe(self) -> Description:
        """Tell what this is."""
        return self._description("unary", "a call per save")

    async def save(self, conversation: Conversation, index: int) -> None:
        """Send one message."""
        await self._stub.SaveSession(_request(conversation, index, ""))


def _request(conversation: Conversation, index: int, request_id: str) -> pb.SaveSessionRequest:
    message = session_pb2.Message(payload=session_pb2.Payload(data=conversation.messages[index].data))
    delta = session_pb2.StateDelta(base_revision=index, appended_messages=[message])
    return pb.SaveSessionRequest(session_name=key(conversation), request_id=request_id, delta=delta)
