"""From the log to this process: one reader, however many watch.

The poll is the truth; hints (NOTIFY) only make it sooner. What is read goes to the hub, with the place up to which it
is complete.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from session_service.events.held_back import HeldBack
from session_service.events.hints import Hint, Hints
from session_service.events.observer import SilentWatchObserver, WatchObserver
from session_service.sessions.errors import Unavailable
from session_service.sessions.events import EventFilter, EventLog, EventType, LogPage

KEEP_EVERY = 5.0
"""Seconds between two notes of how far the log was read: what comes after the last of them is delivered again after a
failover."""

HELD_PAUSE = 0.002
"""Seconds until the first look for events that a running transaction holds back: most run for milliseconds."""

SAVES_APART = 0.02
"""Seconds between reads that only saves ask for: under load each flush would ask for one, at the saves' cost."""

RETRY_PAUSE = 0.5
"""Seconds until the database is asked again."""

_log = structlog.stdlib.get_logger(__name__)


class FeedSink(Protocol):
    """Who gets what is read."""

    def wanted_types(self) -> frozenset[int]:
        """Which events are wanted now."""

    def reading(self) -> frozenset[int]:
        """A read begins, of these types; `publish` or `failed` ends it."""

    def publish(self, page: LogPage) -> None:
        """Take the next page; pages follow each other without a gap."""

    def start(self, page: LogPage) -> None:
        """The log is read from the end of this page on. Before it there may be a gap, or another log."""

    def failed(self) -> None:
        """The page that was asked for does not come."""


class Feed:
    """Follows the log until cancelled; a lost connection or database ends nothing."""

    def __init__(
        self,
        log: EventLog,
        hints: Hints,
        sink: FeedSink,
        poll_interval: float = 1.0,
        observer: WatchObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`poll_interval`: seconds between two looks without a hint."""
        self._log = log
        self._hints = hints
        self._sink = sink
        self._poll_interval = poll_interval
        self._observer = observer or SilentWatchObserver()
        self._clock = clock
        self._held = HeldBack(clock)
        self._kept = clock()
        self._has_grown = True

    async def run(self) -> None:
        """Follow the log."""
        page: LogPage | None = None
        while True:
            try:
                if page is None:
                    page = await self._begin()
                page = await self._step(page)
                await self._keep_watermark(page)
                if page.is_last:
                    await self._wait(page)
            except Unavailable as error:
                _log.info("the log cannot be read now", problem=type(error).__name__)
                await asyncio.sleep(RETRY_PAUSE)
            except Exception:
                # A mistake of this program. It must not end the feed: every watch would be silent for ever.
                _log.exception("the feed failed")
                await asyncio.sleep(RETRY_PAUSE)

    async def _begin(self) -> LogPage:
        page = await self._log.tail()
        self._sink.start(page)
        return page

    async def _step(self, before: LogPage) -> LogPage:
        """Read the next page and give it out."""
        began = self._clock()
        wanted = EventFilter(self._sink.reading())
        try:
            page = await self._log.read(before.end, wanted)
        except BaseException:
            self._sink.failed()
            raise
        if page.identity != before.identity or before.end < page.horizon or page.is_older:
            self._sink.failed()
            _log.warning("the log is another one, an older copy, or was trimmed", timeline=page.identity.timeline)
            return await self._begin()
        self._sink.publish(page)
        self._observer.feed_read(len(page.events), self._clock() - began)
        self._held.look(page)
        self._observer.watermark(self._held.age)
        return page

    async def _keep_watermark(self, page: LogPage) -> None:
        """Note now and then how far the log was read; but not in a database where nothing happens."""
        self._has_grown = self._has_grown or page.has_grown
        if self._has_grown and self._clock() - self._kept >= KEEP_EVERY:
            self._kept, self._has_grown = self._clock(), False
            await self._log.keep_watermark(page.identity, page.end)

    async def _wait(self, page: LogPage) -> None:
        """Wait until the next look is due."""
        read = self._clock()
        wanted = self._sink.wanted_types()
        are_saves_wanted = EventType.SAVED in wanted
        if page.is_held_back:
            pause = self._held.pause(SAVES_APART if are_saves_wanted else HELD_PAUSE)
        else:
            self._held.passed()
            pause = self._poll_interval
        # While nobody watches, nothing that is written makes a look worth its time, which the one who writes would pay.
        least = Hint.WATCHES if not wanted else Hint.SAVES if are_saves_wanted else Hint.OTHERS
        hint = await self._hints.wait(least, pause)
        if hint is Hint.SAVES and (left := read + SAVES_APART - self._clock()) > 0:
            await self._hints.wait(Hint.OTHERS, left)
