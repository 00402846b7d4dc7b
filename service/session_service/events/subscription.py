"""One watch, as the hub sees it: a filter, a place in the log, and a bounded queue."""

import asyncio
import time
from collections import deque
from datetime import UTC, datetime
from typing import NamedTuple

from session_service.sessions.errors import SessionServiceError
from session_service.sessions.events import Delivery, EventFilter, LogPage, Position

QUEUE = 256
"""Events that wait for a watch's caller. One more, and it reads them from the log, when it is ready for them."""

PACE = 60.0
"""Seconds after which a watch that reads the log by itself has to be less far behind than before."""


class Route(NamedTuple):
    """Which events come to the same watches: all of a tenant's, of an agent's, or of a session's."""

    tenant_id: int
    agent_id: str = ""
    session_name: str = ""


class Subscription:
    """The state of one watch. The hub puts events in; whoever sends them takes them out."""

    def __init__(self, wanted: EventFilter, cut: asyncio.Timeout) -> None:
        if wanted.tenant is None:
            raise ValueError("a watch is of a tenant")
        self.wanted = wanted
        self.route = Route(wanted.tenant.tenant_id, wanted.agent_id, wanted.session_name)
        self.position: Position
        """Everything up to here was taken out, or is not wanted."""
        self.opened: LogPage | None = None
        """A watch "from now on" gets nothing that had been committed then."""
        self.is_following = False
        """Whether the hub puts in what it publishes."""
        self.has_followed = False
        """Whether the hub ever put anything in."""
        self.is_counted = False
        """Whether the hub wants its types because of it."""
        self.overflowed = False
        """Whether the hub had something to put in for which there was no room."""
        self.queue: deque[Delivery] = deque()
        self.refusal: SessionServiceError | None = None
        """Why the watch was ended."""
        self.given_at: float | None = None
        """When (time.monotonic) a message was taken out, if no other one was asked for yet."""
        self.last_given = time.monotonic()
        self.is_bookmark_due = False
        self._cut = cut
        self._waiting: asyncio.Future[None] | None = None

    def offer(self, delivery: Delivery) -> None:
        """Put an event in, if it is wanted and there is room."""
        event = delivery.event
        if event is None or event.type not in self.wanted.types or self.is_old(event.position):
            return
        if self.overflowed or len(self.queue) >= QUEUE:
            # Nothing more, also when there is room again: something would be missing before it.
            self.overflowed = True
            return
        self.queue.append(delivery)
        self.wake()

    def is_old(self, position: Position) -> bool:
        """Whether an event comes before what is wanted."""
        return position <= self.position or (self.opened is not None and self.opened.saw(position))

    def end(self, refusal: SessionServiceError) -> None:
        """End the watch, whatever its caller is waiting for."""
        if self.refusal is None:
            self.refusal = refusal
            self._cut.reschedule(asyncio.get_running_loop().time())

    def wake(self) -> None:
        """Let wait() return."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self) -> None:
        """Wait until something was put in, or a bookmark is due."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None


class Pace:
    """Whether a watch that is behind catches up."""

    def __init__(self) -> None:
        self._check_at: float | None = None
        self._behind = 0.0

    def caught_up(self) -> None:
        """It is not behind any more."""
        self._check_at = None

    def falls_behind(self, happened: datetime) -> bool:
        """Take an event into account that was given out just now; True: the watch is as far behind as a while ago."""
        now = time.monotonic()
        if self._check_at is not None and now < self._check_at:
            return False
        behind = (datetime.now(UTC) - happened).total_seconds()
        falls = self._check_at is not None and behind >= self._behind
        self._check_at, self._behind = now + PACE, behind
        return falls
