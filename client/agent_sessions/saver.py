"""How a save reaches the server: in a frame of the stream where that works, else by a call of its own."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent_sessions.connection import Connection
from agent_sessions.errors import MessageTooLarge, SessionServiceError, Unimplemented
from agent_sessions.large_states import LargeStates, is_large
from agent_sessions.retry import Retries
from agent_sessions.stream import SaveStream, StreamRefused
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.wire import bytes_tag, embedded

if TYPE_CHECKING:
    import grpc

SaveAnswer = messages.SaveSessionResponse | messages.UploadSessionResponse
_SNAPSHOT = bytes_tag(messages.SaveSessionRequest.SNAPSHOT_FIELD_NUMBER)
_MESSAGE_HISTORY = bytes_tag(pb.AgentState.MESSAGE_HISTORY_FIELD_NUMBER)
_METHOD = "/agent_sessions.v1.SessionService/SaveSession"


class Saver:
    """Sends encoded SaveSessionRequests.

    Arguments:
        connection: to the server.
        stream: False: every save is a call of its own.
    """

    def __init__(self, connection: Connection, *, stream: bool) -> None:
        self._connection = connection
        self._large = LargeStates(connection)
        self._stream = SaveStream(connection.metadata) if stream else None
        self._unary: grpc.aio.UnaryUnaryMultiCallable[bytes, messages.SaveSessionResponse] | None = None

    async def save(self, data: bytes, request_id: str, timeout: float | None) -> messages.SaveSessionResponse:
        """Send the same bytes until they are answered; raises as `Connection.call` does."""
        # What `with_retries` does, without a coroutine for each of its layers: nearly all saves succeed at once.
        connection, stream = self._connection, self._stream
        started = time.monotonic()
        seconds = connection.timeout if timeout is None else timeout
        deadline = started + seconds if seconds > 0 else started
        retries: Retries | None = None
        while True:
            try:
                if stream is None or (answer := stream.save(connection, data, request_id, deadline)) is None:
                    return await connection.attempt(self._unary or self._open(), data, _left(deadline))
                try:
                    return await answer
                except StreamRefused as refused:
                    # Not a retry: the server may not even have seen the save, and the request_id makes it safe.
                    response = await connection.attempt(self._unary or self._open(), data, _left(deadline))
                    stream.unary_worked(refused)
                    return response
            except SessionServiceError as error:
                retries = retries or Retries(started, seconds, connection.retry)
                await retries.wait_after(error)

    async def save_snapshot(self, request: messages.SaveSessionRequest, deadline: float) -> SaveAnswer:
        """Send a snapshot as one request or, if that is too large, as an upload. Uses it up."""
        history = request.snapshot.message_history
        data = request.SerializeToString()
        if not is_large(len(data), len(history)):
            try:
                return await self.save(data, request.request_id, _left(deadline))
            except MessageTooLarge as error:  # this server's limit is lower than usual
                if error.limit is None or not history:
                    raise
        del data
        encoded = [message.SerializeToString(deterministic=True) for message in history]
        request.snapshot.ClearField("message_history")
        return await self.upload(request.SerializeToString(), encoded, request.request_id, deadline)

    async def upload(self, header: bytes, history: Sequence[bytes], request_id: str, deadline: float) -> SaveAnswer:
        """Send a state that is too large for one request; see `LargeStates.upload`."""
        try:
            return await self._large.upload(header, history, _left(deadline))
        except Unimplemented:
            # A server without uploads may take large requests; else it says how large. Two snapshots in a request
            # are one with the fields of both.
            run = b"".join(embedded(_MESSAGE_HISTORY, message) for message in history)
            request = header + embedded(_SNAPSHOT, run)
            return await self.save(request, request_id, _left(deadline))

    async def close(self) -> None:
        """End the stream after its last answer. May be called twice."""
        if self._stream is not None:
            await self._stream.close()

    def _open(self) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, messages.SaveSessionResponse]":
        self._unary = self._connection.channel.unary_unary(
            _METHOD, response_deserializer=messages.SaveSessionResponse.FromString
        )
        return self._unary


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
