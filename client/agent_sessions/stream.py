"""Saves over one SaveSessions stream: whatever waits goes into the next frame.

One stream at a time, opened when there is something to send. Two tasks serve it,
however many saves there are: one writes frames, the other reads answers. While a
frame is being written, what comes meanwhile waits for the next one; so frames are
small when there is little to do and large when there is much, without any timer.
"""

import asyncio
import time
from collections import deque
from typing import Any

import grpc
from grpc import StatusCode

from agent_sessions.connection import Connection
from agent_sessions.errors import ClientClosed, MessageTooLarge, SessionServiceError, Unavailable
from agent_sessions.pending import FRAMING_BYTES, Expiry, PendingSave, fail, frame_entry
from agent_sessions.status import error_from_rpc, error_from_save
from agent_sessions.v1 import session_service_pb2 as messages

MAX_FRAME_BYTES = 1024 * 1024
"""A frame is sent when it would become larger than this, and a save that alone is larger goes unary."""
MAX_IN_FLIGHT = 1024
"""Saves that are sent and not answered. While there are so many, the others wait here."""
FIRST_ANSWER_TIMEOUT = 5.0
"""Seconds. A stream that has brought no answer by then is held back by something between us and the server."""
UNARY_SECONDS = 60.0
"""How long no stream is tried once it is clear that streams do not work."""
STRIKES = 3
"""So many streams in a row without an answer, where a unary call then succeeded, make it clear."""
CLOSE_TIMEOUT = 5.0
"""Seconds that close() waits for answers."""

_Call = Any
"""A grpc.aio.StreamStreamCall, or an interceptor's; the stubs make each generic and neither the other's base."""

_METHOD = "/agent_sessions.v1.SessionService/SaveSessions"


class StreamRefused(Exception):
    """The stream ended in a way that says nothing about this save: send it by a unary call.

    Arguments:
        stream: the number of the stream; see `SaveStream.unary_worked`.
    """

    def __init__(self, stream: int) -> None:
        super().__init__(stream)
        self.stream = stream


class SaveStream:
    """The stream of one connection; a lost one is replaced by the next save."""

    def __init__(self, metadata: grpc.aio.Metadata | tuple[tuple[str, str | bytes], ...] = ()) -> None:
        self._metadata = metadata
        self._channel: grpc.aio.Channel | None = None
        self._waiting: deque[PendingSave] = deque()
        self._pending: dict[str, PendingSave] = {}  # waiting or sent, by request_id
        self._in_flight = 0
        self._idle: asyncio.Future[None] | None = None
        """What the writer waits on when there is nothing to write."""
        self._expiry = Expiry(self._pending)
        self._task: asyncio.Task[None] | None = None
        self._number = 0
        self._answered = False
        self._silent = False
        self._strikes = 0
        self._last_strike = 0
        self._unary_until = 0.0
        """By the event loop's clock; 0: no stream has been given up."""
        self._max_frame = MAX_FRAME_BYTES
        self._closing = False

    def save(
        self, connection: Connection, data: bytes, request_id: str, deadline: float
    ) -> "asyncio.Future[messages.SaveSessionResponse] | None":
        """Send an encoded SaveSessionRequest once; return what will be its answer. None: no stream takes it now.

        Cancelled, it leaves the save in flight. It fails with StreamRefused, ClientClosed and
        SessionServiceError, DeadlineExceeded at `deadline`, of time.monotonic (inf: never).
        """
        loop = asyncio.get_running_loop()
        if len(data) > self._max_frame - FRAMING_BYTES or request_id in self._pending:
            return None
        if self._unary_until and self._unary_until > loop.time():
            return None
        if self._closing:
            raise ClientClosed("this client was closed")
        answer: asyncio.Future[messages.SaveSessionResponse] = loop.create_future()
        self._pending[request_id] = pending = (data, request_id, deadline, answer)
        self._waiting.append(pending)
        if deadline < self._expiry.next:
            self._expiry.set(deadline)
        if self._idle is not None:
            self._wake_writer()
        elif self._task is None:
            self._channel = connection.channel
            self._task = loop.create_task(self._run(), name="agent-sessions stream")
        return answer

    def unary_worked(self, refused: StreamRefused) -> None:
        """Note that a unary call succeeded right where a stream had not."""
        if self._last_strike < refused.stream:
            self._last_strike = refused.stream
            self._strikes += 1
            if self._strikes >= STRIKES:
                self._go_unary()

    async def close(self) -> None:
        """Send what waits, half-close, and wait for the answers. May be called twice."""
        self._closing = True
        self._wake_writer()
        task = self._task
        if task is None:
            return
        callers = {answer for *_, answer in self._pending.values() if not answer.done()}
        if callers:
            await asyncio.wait(callers, timeout=CLOSE_TIMEOUT)
        if not self._pending:  # else nobody waits for what is in flight
            await asyncio.wait({task}, timeout=CLOSE_TIMEOUT)
        task.cancel()
        await asyncio.wait({task})

    async def _run(self) -> None:
        """Serve streams until nothing waits."""
        try:
            while True:
                await self._one_stream()
                if not self._waiting:
                    return
        finally:
            self._task = None
            self._end_all()

    async def _one_stream(self) -> None:
        self._number += 1
        self._answered = self._silent = False
        assert self._channel is not None  # noqa: S101 – set by the save that started this
        open_stream: Any = self._channel.stream_stream(
            _METHOD, response_deserializer=messages.SaveSessionsResponse.FromString
        )
        call = open_stream(metadata=self._metadata)
        writer = asyncio.create_task(self._write(call), name="agent-sessions writer")
        watch = asyncio.get_running_loop().call_later(FIRST_ANSWER_TIMEOUT, self._give_up_if_silent, call)
        try:
            self._lost(await self._read(call))
        finally:
            watch.cancel()
            writer.cancel()
            call.cancel()
            await asyncio.wait({writer})
            if not writer.cancelled():
                writer.exception()  # the reader has told how the stream ended

    async def _write(self, call: _Call) -> None:
        while True:
            frame = self._next_frame()
            if frame:
                await call.write(frame)
            elif self._closing and not self._waiting:
                await call.done_writing()
                return
            else:
                self._idle = asyncio.get_running_loop().create_future()
                try:
                    await self._idle
                finally:
                    self._idle = None

    def _wake_writer(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    def _next_frame(self) -> bytes:
        parts: list[bytes] = []
        size = taken = 0
        now = time.monotonic()
        waiting = self._waiting
        room = MAX_IN_FLIGHT - self._in_flight
        while waiting and taken < room:
            data, request_id, deadline, answer = waiting[0]
            if answer.done():  # its caller has gone before it was sent
                waiting.popleft()
                del self._pending[request_id]
                continue
            size += len(data) + FRAMING_BYTES
            if taken and size > self._max_frame:
                break
            waiting.popleft()
            taken += 1
            parts += frame_entry(data, deadline - now)
        self._in_flight += taken
        return b"".join(parts)

    async def _read(self, call: _Call) -> SessionServiceError:
        """Hand answers out until the stream ends; return why it did."""
        try:
            while (frame := await call.read()) is not grpc.aio.EOF:
                self._answered = True
                self._strikes = 0
                self._hand_out(frame)
                if self._waiting:
                    self._wake_writer()
        except grpc.aio.AioRpcError as failure:
            error = error_from_rpc(failure)
            error.__cause__ = failure
            return error
        except asyncio.CancelledError:
            if not self._silent:
                raise  # by close, or by the event loop's end
            return Unavailable("the stream brought no answer")
        return Unavailable("the server ended the stream")

    def _hand_out(self, frame: messages.SaveSessionsResponse) -> None:
        taken = self._pending.pop
        for result in frame.results:
            pending = taken(result.request_id, None)
            if pending is None:
                continue
            self._in_flight -= 1
            answer = pending[3]
            if answer.done():  # its caller has gone
                continue
            if result.HasField("response"):
                answer.set_result(result.response)
            else:
                answer.set_exception(error_from_save(result.error))

    def _lost(self, error: SessionServiceError) -> None:
        """Tell those whose saves were in flight; what waits goes over the next stream, if there can be one."""
        if error.code is StatusCode.UNIMPLEMENTED:
            self._go_unary()
        if isinstance(error, MessageTooLarge):  # this server's limit is lower than usual
            self._max_frame = min(self._max_frame, (error.limit or self._max_frame) * 3 // 4)
        refused = not self._answered or error.code is not StatusCode.UNAVAILABLE
        waiting = set() if refused else {request_id for _, request_id, _, _ in self._waiting}
        for _, request_id, _, answer in [*self._pending.values()]:
            if request_id not in waiting:
                del self._pending[request_id]
                fail(answer, StreamRefused(self._number) if refused else _again(error))
        self._in_flight = 0
        if refused:
            self._waiting.clear()

    def _go_unary(self) -> None:
        self._unary_until = asyncio.get_running_loop().time() + UNARY_SECONDS
        self._strikes = STRIKES - 1  # then one stream is tried

    def _give_up_if_silent(self, call: _Call) -> None:
        if not self._answered:
            self._silent = True
            call.cancel()

    def _end_all(self) -> None:
        """Leave nobody waiting when the tasks end early."""
        left = [*self._pending.values()]
        self._pending.clear()
        self._waiting.clear()
        self._in_flight = 0
        self._expiry.stop()
        for *_, answer in left:
            fail(answer, ClientClosed("this client was closed during the call"))


def _again(error: SessionServiceError) -> SessionServiceError:
    """Return an error of its own for each caller, so that their tracebacks do not mix."""
    copy = type(error)(
        error.message, code=error.code, reason=error.reason, metadata=error.metadata, retry_delay=error.retry_delay
    )
    copy.__cause__ = error.__cause__
    return copy
