"""A log in memory whose transactions run as a test wants, and whose reads take as long as it wants."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

from session_service.sessions.errors import DatabaseUnavailable
from session_service.sessions.events import (
    LAST_SEQ,
    START,
    Event,
    EventFilter,
    LogIdentity,
    LogPage,
    Position,
)
from session_service.sessions.model import Tenant

TENANT = Tenant(1, "default", b"secret")
SECRET = b"0123456789abcdef"
SYSTEM = 7_000_000_000_000_000_000


class FakeLog:
    """An EventLog. Events become visible when their transaction commits; reads go only below the oldest running one."""

    def __init__(self, *, page: int = 2000, delay: "Callable[[], Awaitable[None]] | None" = None) -> None:
        """`delay`: awaited before and after each read's snapshot is taken."""
        self.identity = LogIdentity(SYSTEM, 1, (), SECRET)
        self.horizon = START
        self.committed: list[Event] = []
        self.kept: list[Position] = []
        self.reads = 0
        self.asked = 0
        self.is_down = False
        self.is_older = False
        self._was_read = asyncio.Event()
        self._page = page
        self._delay = delay
        self._next_xid = 1000
        self._next_seq = 1
        self._running: dict[int, list[Event]] = {}

    async def until_asked(self, more: int) -> None:
        """Wait until it was asked for a page so often again, answered or not."""
        asked = self.asked
        async with asyncio.timeout(20):
            while self.asked < asked + more:
                self._was_read.clear()
                await self._was_read.wait()

    def go_on_after(self, position: Position) -> None:
        """Give out only numbers above a place's."""
        self._next_xid, self._next_seq = position.xid, position.seq + 1

    def begin(self) -> int:
        """Begin a transaction; returns its number."""
        self._next_xid += 1
        self._running[self._next_xid] = []
        return self._next_xid

    def write(
        self, xid: int, *, kind: int = 2, agent_id: str = "a", session_name: str = "s", tenant: Tenant = TENANT
    ) -> Event:
        """Log an event in a transaction."""
        event = Event(
            Position(xid, self._next_seq),
            kind,
            tenant.tenant_id,
            agent_id,
            session_name,
            1,
            datetime.now(UTC),
            uuid4(),
            uuid4(),
            "",
            "anonymous",
        )
        self._next_seq += 1
        self._running[xid].append(event)
        return event

    def commit(self, xid: int) -> None:
        """Make a transaction's events visible."""
        self.committed += self._running.pop(xid)

    def roll_back(self, xid: int) -> None:
        """Forget a transaction's events."""
        del self._running[xid]

    def add(self, count: int = 1, *, kind: int = 2, agent_id: str = "a", session_name: str = "s") -> list[Event]:
        """Log events, each in a transaction of its own."""
        added = []
        for _ in range(count):
            xid = self.begin()
            added.append(self.write(xid, kind=kind, agent_id=agent_id, session_name=session_name))
            self.commit(xid)
        return added

    async def until_read(self, times: int) -> None:
        """Wait until it was read so often."""
        async with asyncio.timeout(20):
            while self.reads < times:
                self._was_read.clear()
                await self._was_read.wait()

    async def read(self, after: Position, wanted: EventFilter, up_to: Position | None = None) -> LogPage:
        """See EventLog."""
        await self._pause()
        self.asked += 1
        self._was_read.set()
        if self.is_down:
            raise DatabaseUnavailable("the database cannot be reached")
        self.reads += 1
        self._was_read.set()
        watermark = Position(self._xmin - 1, LAST_SEQ)
        bound = min(watermark, up_to) if up_to else watermark
        looked_at = sorted(e for e in self.committed if after < e.position <= bound)[: self._page]
        is_last = len(looked_at) < self._page
        page = self._tail()._replace(
            events=[e for e in looked_at if _is_wanted(e, wanted)],
            end=up_to if is_last and up_to else looked_at[-1].position if looked_at else after,
            is_last=is_last,
            has_grown=bool(looked_at),
            is_older=self.is_older,
            is_held_back=any(e.position > watermark and e.type in wanted.types for e in self.committed),
        )
        await self._pause()
        return page

    async def tail(self) -> LogPage:
        """See EventLog."""
        await self._pause()
        if self.is_down:
            raise DatabaseUnavailable("the database cannot be reached")
        page = self._tail()
        await self._pause()
        return page

    async def keep_watermark(self, identity: LogIdentity, position: Position) -> None:
        """See EventLog."""
        self.kept.append(position)

    @property
    def _xmin(self) -> int:
        return min([*self._running, self._next_xid + 1])

    def _tail(self) -> LogPage:
        return LogPage(
            identity=self.identity,
            events=(),
            end=max([START, *(e.position for e in self.committed if e.position.xid < self._xmin)]),
            is_last=True,
            has_grown=False,
            is_held_back=False,
            horizon=self.horizon,
            xmin=self._xmin,
            xmax=self._next_xid + 1,
            running=frozenset(self._running),
        )

    async def _pause(self) -> None:
        if self._delay is not None:
            await self._delay()


def random_delay(chance: random.Random) -> Callable[[], Awaitable[None]]:
    """Let others run for a random while."""

    async def delay() -> None:
        for _ in range(chance.randrange(6)):
            await asyncio.sleep(0)

    return delay


def _is_wanted(event: Event, wanted: EventFilter) -> bool:
    return (
        event.type in wanted.types
        and (wanted.tenant is None or wanted.tenant.tenant_id == event.tenant_id)
        and wanted.agent_id in ("", event.agent_id)
        and wanted.session_name in ("", event.session_name)
    )
