"""SaveSessions: many saves over one stream, each answered by itself.

A reader starts a task for each save as its frame arrives, a bounded number at
a time; whatever has been answered by then goes out in the next frame.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import cast

import structlog
from agent_sessions.v1.session_service_pb2 import (
    FramedSave,
    SaveSessionRequest,
    SaveSessionResponse,
    SaveSessionsRequest,
    SaveSessionsResponse,
)

from session_service.api.errors import INTERNAL, DeadlineExceeded, kind_of, to_save_error
from session_service.sessions.errors import InvalidField, ShuttingDown

MAX_IN_HAND = 1024
"""Saves of one stream that are not answered yet. While there are so many, no frame is read."""

_log = structlog.stdlib.get_logger(__name__)


class SaveStream:
    """One stream, from its first frame to its last answer."""

    def __init__(
        self,
        save: Callable[[SaveSessionRequest], Awaitable[SaveSessionResponse]],
        draining: asyncio.Event,
        on_error: Callable[[str], None],
    ) -> None:
        self._save = save
        self._draining = draining
        self._on_error = on_error
        self._room = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._frame = SaveSessionsResponse()
        """Answers that wait to be sent."""
        self._changed = asyncio.Event()

    async def answers(self, frames: AsyncIterable[SaveSessionsRequest]) -> AsyncIterator[SaveSessionsResponse]:
        """Frames of answers until all frames were read and all saves answered.

        Raises:
            ShuttingDown: the server is draining; what it had taken has been answered.
        """
        reader = asyncio.create_task(self._read(frames))
        drain = asyncio.create_task(self._draining.wait())
        reader.add_done_callback(self._wake)
        drain.add_done_callback(self._wake)
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                if drain.done():
                    reader.cancel()
                if self._frame.results:
                    frame, self._frame = self._frame, SaveSessionsResponse()
                    yield frame
                # Looked at after the answers went out: nothing wakes this loop for those that came meanwhile.
                if reader.done() and not self._tasks and not self._frame.results:
                    break
            if drain.done():
                raise ShuttingDown("the server is shutting down")
            reader.result()
        finally:
            # The caller has gone, or nothing is left. A flush under way goes on by itself.
            for task in (reader, drain, *self._tasks):
                task.cancel()

    async def _read(self, frames: AsyncIterable[SaveSessionsRequest]) -> None:
        async for frame in frames:
            for framed in frame.saves:
                while len(self._tasks) >= MAX_IN_HAND:
                    self._room.clear()
                    await self._room.wait()
                task = asyncio.create_task(self._answer(framed))
                self._tasks.add(task)
                task.add_done_callback(self._answered)

    async def _answer(self, framed: FramedSave) -> None:
        request_id = framed.request.request_id
        try:
            response = await self._carry_out(framed)
        except Exception as error:
            code, reason = kind_of(error)
            self._on_error(reason)
            if (code, reason) == INTERNAL:
                _log.exception("save failed", request_id=request_id)
            self._frame.results.add(request_id=request_id, error=to_save_error(error, request_id))
        else:
            self._frame.results.add(request_id=request_id, response=response)

    async def _carry_out(self, framed: FramedSave) -> SaveSessionResponse:
        if not framed.request.request_id:
            raise InvalidField("request_id", "is required in a frame")
        if not framed.HasField("timeout"):
            return await self._save(framed.request)
        limit = _Limit(_seconds(framed))
        try:
            return await self._save(framed.request)
        except asyncio.CancelledError:
            if limit.has_passed and limit.task.uncancel() == 0:
                seconds = limit.seconds
                raise DeadlineExceeded(
                    f"the save was not done within {seconds} s; it may be stored all the same"
                ) from None
            raise
        finally:
            limit.lift()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._room.set()
        self._changed.set()

    def _wake(self, _: object) -> None:
        self._changed.set()


class _Limit:
    """Cancels the task that made it after a time: asyncio.timeout, but for what few saves need."""

    __slots__ = ("_timer", "has_passed", "seconds", "task")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.has_passed = False
        self.task = cast("asyncio.Task[None]", asyncio.current_task())
        self._timer = asyncio.get_running_loop().call_later(seconds, self._pass)

    def lift(self) -> None:
        self._timer.cancel()

    def _pass(self) -> None:
        self.has_passed = True
        self.task.cancel()


def _seconds(framed: FramedSave) -> float:
    seconds = framed.timeout.seconds + framed.timeout.nanos / 1e9
    if seconds <= 0:
        raise InvalidField("timeout", "must be more than 0 s", seconds)
    return seconds
