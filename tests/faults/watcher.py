"""A watcher of its own over the generated stubs: unlike a client library it sees repeats, and remembers all it gets."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from agent_sessions.v1.session_pb2 import EventType, SessionEvent
from agent_sessions.v1.session_service_pb2 import WatchSessionsRequest, WatchSessionsResponse
from agent_sessions.v1.session_service_pb2_grpc import SessionServiceStub
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

PATIENCE = 60.0
"""Seconds until what must come has come."""

PAUSE = 0.05
"""Seconds until a broken stream is opened again."""

ALL_TYPES = tuple(number for number in EventType.values() if number)
FRUGAL = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 4096), ("grpc.use_local_subchannel_pool", 1))
"""Takes little in before it is read, so that the server notices a reader that does not."""


class Received(NamedTuple):
    """One event as it came."""

    event_id: str
    type: int
    agent_id: str
    session_name: str
    revision: int
    stream: int
    """Over the how-manieth stream of the watcher."""


class Watcher:
    """Watches in the background, from its entry on; goes on with its last token whenever a stream ends."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        types: Sequence[int] = ALL_TYPES,
        agent_id: str = "",
        session_name: str = "",
        token: bytes = b"",
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        """`addresses`: where streams are opened, in turns."""
        self.token = token
        self.received: list[Received] = []
        self.streams = 0
        """Opened so far: `created` came."""
        self.bookmarks = 0
        self.ends: Counter[str] = Counter()
        """Why streams ended: code and reason."""
        self.last_error: grpc.aio.AioRpcError | None = None
        self.types, self.agent_id = types, agent_id
        self._addresses = addresses
        self._request = WatchSessionsRequest(
            agent_id=agent_id,
            session_name=session_name,
            types=types,  # type: ignore[arg-type]  # numbers of the enum
        )
        self._options = options
        self._attempts = 0
        self._waiting: list[tuple[Callable[[], object], asyncio.Future[None]]] = []
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        """Return once the first stream is open."""
        self._task = asyncio.create_task(self._run())
        await self.until(lambda: self.streams)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def until(self, condition: Callable[[], object], timeout: float = PATIENCE) -> None:
        """Wait until something is true of this watcher. Raises what it died of."""
        if condition():
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((condition, future))
        limit = None if timeout == math.inf else timeout
        done, _ = await asyncio.wait({future, self._task}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self._task in done:
            await self._task
        if future not in done:
            raise TimeoutError(f"{len(self.received)} events, {self.streams} streams, ends: {self.ends}")

    async def until_received(self, count: int, timeout: float = PATIENCE) -> None:
        """Wait until so many events have come, repeats included."""
        await self.until(lambda: len(self.received) >= count, timeout)

    async def until_silent(self) -> None:
        """Wait for a bookmark that comes from now on."""
        before = self.bookmarks
        await self.until(lambda: self.bookmarks > before)

    @property
    def revisions(self) -> list[int]:
        """Of what came, in the order in which it came."""
        return [one.revision for one in self.received]

    async def taken(self) -> bool:
        """After each event, before the next one is asked for; False: hang up, and open another stream."""
        return True

    def refused(self, error: grpc.aio.AioRpcError) -> None:
        """A stream ended with an error. Raises it, if that is no reason to open another one."""
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
            raise error

    async def _run(self) -> None:
        while True:
            address = self._addresses[self._attempts % len(self._addresses)]
            self._attempts += 1
            try:
                async with grpc.aio.insecure_channel(address, self._options) as channel:
                    await self._read(SessionServiceStub(channel))
            except grpc.aio.AioRpcError as error:
                self.last_error = error
                self.ends[describe(error)] += 1
                self._look()
                self.refused(error)
                await asyncio.sleep(PAUSE)

    async def _read(self, stub: Any) -> None:
        """Read one stream, until it ends or is hung up."""
        self._request.resume_token = self.token
        call = stub.WatchSessions(self._request)
        while True:
            message = await call.read()
            if message is grpc.aio.EOF:
                self.ends["OK"] += 1
                return
            is_event = self._take(message)
            self._look()
            if is_event and not await self.taken():
                self.ends["hung up"] += 1
                return

    def _take(self, message: WatchSessionsResponse) -> bool:
        self.token = message.resume_token
        kind = message.WhichOneof("message")
        if kind == "event":
            self.received.append(_received(message.event, self.streams))
            return True
        if kind == "created":
            self.streams += 1
        else:
            self.bookmarks += 1
        return False

    def _look(self) -> None:
        """Let those go on who wait for what is true now."""
        for waiting in [*self._waiting] if self._waiting else ():
            condition, future = waiting
            if future.done() or condition():
                self._waiting.remove(waiting)
                if not future.done():
                    future.set_result(None)


def _received(event: SessionEvent, stream: int) -> Received:
    return Received(event.event_id, event.type, event.agent_id, event.session_name, event.revision, stream)


def describe(error: grpc.aio.AioRpcError) -> str:
    """Return code and reason."""
    reason = info_of(error).reason
    return f"{error.code().name} {reason}".strip()


def info_of(error: grpc.aio.AioRpcError) -> ErrorInfo:
    """Return the error's ErrorInfo; empty, if it has none (a connection that was lost)."""
    info = ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                if detail.Unpack(info):
                    return info
    return info
