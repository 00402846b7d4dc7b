"""Events as they happen: an iterator that outlives connections and servers."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from enum import IntEnum
from types import TracebackType
from typing import Self

from agent_sessions.errors import SessionServiceError
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.watch_stream import WatchStream

SILENCE_TIMEOUT = 60.0
"""Seconds. Servers break the silence every 5 s, by default."""
REMEMBERED_EVENTS = 8192
"""So many events are known again when they are repeated. Repeats follow a failover, and are those of a few seconds."""

KeepToken = Callable[[bytes], Awaitable[object] | object]
"""Stores a resume token, for example in a file; a plain function or a coroutine function."""


class EventType(IntEnum):
    """What happened to a session; equal to the protobuf enum's numbers."""

    SAVED = 1
    RESTORED = 2
    DELETED = 3
    UNDELETED = 4


_KNOWN_TYPES = frozenset(map(int, EventType))


class Watch:
    """The events of a session, of an agent, or of all; made by `SessionClient.watch`.

        async with client.watch("agent", "session") as watch:
            async for event in watch: ...

    It does not end by itself. Where the stream breaks, it goes on after what came last,
    with any server, for as long as it takes (as long as the client's RetryPolicy has no
    max_attempts): no event is lost, and repeats are left out, as far as they are among the
    newest 8,192. Events of types that this version does not know are left out, too.

    Entering it, or `started()`, waits until the server watches: what happens after that is
    delivered. A watch from now on (no resume_token) that could not be started yet begins
    with the moment when it could.

    Waiting for an event may be cancelled, and the next wait goes on with it. An error ends
    the watch; so does the client's close, by ClientClosed. Another watch can go on with its
    `resume_token`. One task at a time waits for events.
    """

    def __init__(self, stream: WatchStream, *, resume_token: bytes, keep_token: KeepToken | None) -> None:
        self.resume_token = resume_token
        """To go on after what this side is done with: all events before the one that was given last, and that one,
        too, as soon as the next is asked for. Empty before the watch has started."""
        self.event_token = b""
        """To go on after the event that was given last."""
        self._stream = stream
        self._keep_token = keep_token
        self._is_started = asyncio.Event()
        self._known: dict[str, None] = {}
        self._step: asyncio.Task[pb.SessionEvent] | None = None
        self._has_waiter = False
        self._end: Exception | None = None
        """Set when it has ended: what a wait raises then."""

    @property
    def last_error(self) -> SessionServiceError | None:
        """Why there is no stream at the moment; None while there is one, or none was tried."""
        return self._stream.last_error

    async def started(self) -> None:
        """Wait until the server watches, or this is closed. Raises as the iterator does."""
        if self._end is None and not self._is_started.is_set():
            step = self._begin_step()
            begun = asyncio.create_task(self._is_started.wait())
            try:
                await asyncio.wait({step, begun}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                begun.cancel()
            if not self._is_started.is_set():
                self._take(step)  # it failed: raises
        if self._end is not None and not isinstance(self._end, StopAsyncIteration):
            raise self._end

    def __aiter__(self) -> Self:
        """Return itself: there is one place in the log, however many loops."""
        return self

    async def __anext__(self) -> pb.SessionEvent:
        """Wait for the next event; the one before it is done with."""
        if self._has_waiter:
            raise RuntimeError("another task waits for this watch's events")
        if self._end is not None:
            raise self._end
        step = self._begin_step()
        self._has_waiter = True
        try:
            # Not the step itself: cancelled, it would leave an event to nobody.
            await asyncio.wait({step})
        finally:
            self._has_waiter = False
        return self._take(step)

    async def __aenter__(self) -> Self:
        """Wait until the server watches."""
        try:
            await self.started()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream; a loop over the events ends, too. May be called twice."""
        step = self._step
        self.end(StopAsyncIteration())
        if step is not None and step is not asyncio.current_task():
            await asyncio.wait({step})
            _retrieve(step)

    def end(self, reason: Exception) -> None:
        """End it now; whoever waits gets the reason, if it is the first."""
        self._end = self._end or reason
        self._is_started.set()  # nobody waits for that any longer
        if self._step is not None:
            self._step.cancel()
        self._stream.close()

    def _begin_step(self) -> "asyncio.Task[pb.SessionEvent]":
        if self._step is None:
            self._step = asyncio.create_task(self._next_event(), name="agent-sessions watch")
        return self._step

    def _take(self, step: "asyncio.Task[pb.SessionEvent]") -> pb.SessionEvent:
        """Return what a step that is done came to."""
        if self._step is step:
            self._step = None
        if self._end is None and not step.cancelled():
            error = step.exception()
            if error is None:
                return step.result()
            self.end(error if isinstance(error, Exception) else StopAsyncIteration())
            raise error
        _retrieve(step)
        if self._end is None:  # everything in this event loop is being ended
            raise asyncio.CancelledError
        raise self._end

    async def _next_event(self) -> pb.SessionEvent:
        await self._done_with(self.event_token)
        while True:
            message = await self._stream.read()
            self._is_started.set()
            if message.HasField("event") and self._is_news(message.event):
                self.event_token = message.resume_token
                return message.event
            await self._done_with(message.resume_token)

    def _is_news(self, event: pb.SessionEvent) -> bool:
        if event.type not in _KNOWN_TYPES or event.event_id in self._known:
            return False
        if event.event_id:
            self._known[event.event_id] = None
            if len(self._known) > REMEMBERED_EVENTS:
                del self._known[next(iter(self._known))]
        return True

    async def _done_with(self, token: bytes) -> None:
        if not token or token == self.resume_token:
            return
        self.resume_token = token
        if self._keep_token is not None:
            kept = self._keep_token(token)
            if inspect.isawaitable(kept):
                await kept


def _retrieve(step: "asyncio.Task[pb.SessionEvent]") -> None:
    """Let asyncio not complain of an error that nobody asks for."""
    if step.done() and not step.cancelled():
        step.exception()
