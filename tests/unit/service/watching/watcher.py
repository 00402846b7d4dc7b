"""A feed, a hub and watches over a fake log, and one who watches."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from session_service.events.feed import Feed
from session_service.events.hints import Hint, Hints
from session_service.events.hub import Hub
from session_service.events.watches import Watches, WatchLimits
from session_service.sessions.events import Delivery, Event, EventFilter
from session_service.sessions.model import Tenant

from tests.unit.service.watching.fake_log import TENANT, FakeLog


class Room(NamedTuple):
    """All parts, running."""

    log: FakeLog
    hints: Hints
    hub: Hub
    watches: Watches


@asynccontextmanager
async def room(
    log: FakeLog, limits: WatchLimits | None = None, *, poll: float = 60.0, observer: "object | None" = None
) -> AsyncIterator[Room]:
    """Run the parts; `poll`: seconds, so long that only a hint makes the feed look."""
    hints = Hints()
    hub = Hub(hints, observer)  # type: ignore[arg-type]
    watches = Watches(hub, log, limits, observer)  # type: ignore[arg-type]
    tasks = [
        asyncio.create_task(Feed(log, hints, hub, poll, observer).run()),  # type: ignore[arg-type]
        asyncio.create_task(watches.run()),
    ]
    try:
        yield Room(log, hints, hub, watches)
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def wanting(
    types: tuple[int, ...] = (2,), agent_id: str = "", session_name: str = "", tenant: Tenant = TENANT
) -> EventFilter:
    return EventFilter(frozenset(types), tenant, agent_id, session_name)


class Watcher:
    """Watches until stopped; keeps what it was given."""

    def __init__(self, watches: Watches, wanted: EventFilter, token: bytes = b"") -> None:
        self.events: list[Event] = []
        self.bookmarks = 0
        self.token = token
        self.created = asyncio.Event()
        self.error: Exception | None = None
        self.pause: Callable[[], Awaitable[None]] | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run(watches, wanted))

    async def _run(self, watches: Watches, wanted: EventFilter) -> None:
        try:
            async with watches.watch(wanted, self.token) as deliveries:
                async for delivery in deliveries:
                    self._take(delivery)
                    if self.pause is not None:
                        await self.pause()
        except Exception as error:
            self.error = error
        finally:
            self.created.set()
            self._changed.set()

    def _take(self, delivery: Delivery) -> None:
        self.token = delivery.resume_token
        if delivery.event is not None:
            assert self.created.is_set()
            self.events.append(delivery.event)
        elif delivery.is_first:
            self.created.set()
        else:
            self.bookmarks += 1
        self._changed.set()

    async def until(self, condition: Callable[["Watcher"], bool]) -> None:
        """Wait until something holds of what was given."""
        async with asyncio.timeout(20):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def got(self, count: int) -> list[Event]:
        """Wait for so many events."""
        await self.until(lambda _: len(self.events) >= count)
        return self.events

    async def ended(self) -> Exception | None:
        """Wait until the watch was ended; returns why."""
        await asyncio.wait({self._task}, timeout=20)
        assert self._task.done()
        return self.error

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def watching(place: Room, wanted: EventFilter | None = None, token: bytes = b"") -> Watcher:
    """A watcher that has been told `created`."""
    watcher = Watcher(place.watches, wanted or wanting(), token)
    async with asyncio.timeout(20):
        await watcher.created.wait()
    return watcher


def hint(place: Room) -> None:
    """Say that the log has grown."""
    place.hints.tell(Hint.OTHERS)
