"""SaveSessions: many saves over one stream, each answered by itself.

A reader begins each save as its frame arrives, a bounded number at a time;
whatever has been answered by then goes out in the next frame. A save under way is
a future, not a task: most need no step of their own between being begun and being
answered.
"""

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial

import structlog
from agent_sessions.v1.session_service_pb2 import (
    FramedSave,
    SaveSessionRequest,
    SaveSessionsRequest,
    SaveSessionsResponse,
)

from session_service.api import convert, fields
from session_service.api.errors import INTERNAL, DeadlineExceeded, kind_of, to_save_error
from session_service.api.outbox import Outbox
from session_service.api.time_limits import TimeLimits
from session_service.sessions.errors import InvalidField, ShuttingDown
from session_service.sessions.model import Save, Saved

MAX_IN_HAND = 1024
"""Saves of one stream whose answers are not on their way yet. While there are so many, no more are begun or read."""

LONGEST_SPELL = 0.1
"""Seconds of beginning one save after another, before other calls have their turn."""

_WORTH_PARTING = 4
"""Saves in a part of a frame, so that it goes in parts."""

_GROUP = 16
"""Saves that are begun together, step by step: more gain nothing."""

_LIGHT = 1 << 20
"""Bytes of a frame whose saves are begun together: what is larger would keep the event loop too long."""

_log = structlog.stdlib.get_logger(__name__)


class SaveStream:
    """One stream, from its first frame to its last answer."""

    def __init__(
        self,
        parse: Callable[[SaveSessionRequest], Save],
        save_many: Callable[[Sequence[Save]], Sequence[Awaitable[Saved]]],
        draining: asyncio.Event,
        on_error: Callable[[str], None],
    ) -> None:
        self._parse = parse
        self._save_many = save_many
        self._draining = draining
        self._on_error = on_error
        self._room = asyncio.Event()
        self._in_hand: set[asyncio.Future[Saved]] = set()
        self._limits = TimeLimits()
        self._outbox = Outbox()
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
                while self._outbox.count:
                    yield self._outbox.take()
                    # Only now: as long as the caller does not read, nothing more is taken from it.
                    self._room.set()
                # Looked at after the answers went out: nothing wakes this loop for those that came meanwhile.
                if reader.done() and not self._in_hand and not self._outbox.count:
                    break
            if drain.done():
                raise ShuttingDown("the server is shutting down")
            reader.result()
        finally:
            # The caller has gone, or nothing is left. A flush under way goes on by itself.
            self._limits.close()
            reader.cancel()
            drain.cancel()
            for save in self._in_hand:
                save.cancel()

    async def _read(self, frames: AsyncIterable[SaveSessionsRequest]) -> None:
        clock = asyncio.get_running_loop().time
        async for frame in frames:
            arrived = spell = clock()
            saves = frame.saves
            part = self._part(len(saves))
            group = _GROUP if frame.ByteSize() <= _LIGHT else 1
            begun = 0
            while begun < len(saves):
                room = MAX_IN_HAND - len(self._in_hand) - self._outbox.count
                if room <= 0:
                    self._room.clear()
                    await self._room.wait()
                    continue
                end = min(begun + min(room, group), begun - begun % part + part, len(saves))
                self._begin(saves[begun:end], arrived)
                begun = end
                if begun % part == 0 or clock() - spell > LONGEST_SPELL:
                    await asyncio.sleep(0)
                    spell = clock()

    def _part(self, saves: int) -> int:
        """How many saves of a frame are begun before the first of them may go to the database.

        Client, server and database work at the same time only if each has some of what is in flight. So a
        frame that comes while nothing is under way goes in three parts, and one that holds most of all in two.
        After that the parts follow each other by themselves, and frames are not parted any more.
        """
        under_way = len(self._in_hand)
        parts = 3 if not under_way else 2 if saves > 1.5 * under_way else 1
        return max(-(-saves // parts), _WORTH_PARTING)

    def _begin(self, framed_saves: Sequence[FramedSave], arrived: float) -> None:
        accepted: list[tuple[str, float, float]] = []
        parsed: list[Save] = []
        waited = asyncio.get_running_loop().time() - arrived
        for framed in framed_saves:
            request = framed.request
            request_id = request.request_id
            try:
                if not request_id:
                    raise InvalidField("request_id", "is required in a frame")
                seconds = _seconds(framed) if framed.HasField("timeout") else math.inf
                if seconds <= waited:
                    raise DeadlineExceeded(f"the save was not begun within {seconds} s")
                parsed.append(self._parse(request))
                accepted.append((request_id, seconds, seconds - waited))
            except Exception as error:
                self._refuse(request_id, error)
                self._changed.set()
        for (request_id, seconds, left), begun in zip(accepted, self._save_many(parsed), strict=True):
            save = asyncio.ensure_future(begun)
            self._in_hand.add(save)
            if seconds < math.inf:
                self._limits.begin(save, left)
            save.add_done_callback(partial(self._answer, request_id, seconds))

    def _answer(self, request_id: str, seconds: float, save: "asyncio.Future[Saved]") -> None:
        self._in_hand.discard(save)
        is_late = self._limits.end(save)
        if save.cancelled():
            if is_late:  # else this stream was cut, and nobody waits for an answer
                late = DeadlineExceeded(f"the save was not done within {seconds} s; it may be stored all the same")
                self._refuse(request_id, late)
        elif (error := save.exception()) is not None:
            self._refuse(request_id, error)
        else:
            answer = self._outbox.add(request_id)
            convert.saved(save.result(), answer.response)
            self._outbox.filled(answer)
        self._changed.set()

    def _refuse(self, request_id: str, error: BaseException) -> None:
        code, reason = kind_of(error)
        self._on_error(reason)
        if (code, reason) == INTERNAL:
            _log.error("save failed", request_id=request_id, exc_info=error)
        answer = self._outbox.add(request_id[: fields.NAME_LENGTH])
        answer.error.CopyFrom(to_save_error(error, request_id))
        self._outbox.filled(answer)

    def _wake(self, _: object) -> None:
        self._changed.set()


def _seconds(framed: FramedSave) -> float:
    seconds = framed.timeout.seconds + framed.timeout.nanos / 1e9
    if seconds <= 0:
        raise InvalidField("timeout", "must be more than 0 s", seconds)
    return seconds
