"""Watches: what each gives to its caller, and when it is ended."""

import asyncio
import base64
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from session_service.events.hub import Hub, interrupted
from session_service.events.observer import SilentWatchObserver, WatchObserver
from session_service.events.subscription import Pace, Subscription
from session_service.events.tokens import resolve
from session_service.sessions.errors import CursorExpired, ShuttingDown, SlowWatcher, TooManyWatches
from session_service.sessions.events import Delivery, Event, EventFilter, EventLog, LogPage, Position


class WatchLimits(NamedTuple):
    """The settings."""

    watches: int = 10_000
    """At the same time."""
    send_seconds: float = 30.0
    """How long a caller may take for one message."""
    bookmark_seconds: float = 5.0
    """Silence after which a bookmark is sent."""


class Watches:
    """All watches of this process: an EventWatcher."""

    def __init__(
        self,
        hub: Hub,
        log: EventLog,
        limits: WatchLimits | None = None,
        observer: WatchObserver | None = None,
    ) -> None:
        """`log`: for the watches that read by themselves."""
        self._hub = hub
        self._log = log
        self._tail = _SharedTail(log)
        self._limits = limits or WatchLimits()
        self._observer = observer or SilentWatchObserver()
        self._closing = False

    @asynccontextmanager
    async def watch(self, wanted: EventFilter, resume_token: bytes) -> AsyncIterator[AsyncIterator[Delivery]]:
        """See EventWatcher."""
        if self._closing:
            raise ShuttingDown("the server is shutting down")
        if self._hub.count >= self._limits.watches:
            self._observer.dropped("too_many")
            limit = self._limits.watches
            raise TooManyWatches(f"this server has {limit} watches, its limit; try again", {"limit": str(limit)})
        subscription: Subscription | None = None
        try:
            async with asyncio.timeout(None) as cut:
                subscription = Subscription(wanted, cut)
                self._hub.add(subscription)
                self._observer.watches(self._hub.count)
                async with aclosing(self._messages(subscription, resume_token)) as messages:
                    yield messages
        except TimeoutError:
            if subscription is not None and subscription.refusal is not None:
                raise subscription.refusal from None
            raise
        finally:
            if subscription is not None:
                self._hub.remove(subscription)
                self._observer.watches(self._hub.count)

    async def run(self) -> None:
        """Look after all watches until cancelled: who is due for a bookmark, who does not take what was given."""
        while True:
            await asyncio.sleep(min(self._limits.bookmark_seconds, self._limits.send_seconds) / 4)
            now = time.monotonic()
            for subscription in self._hub.subscriptions():
                self._look_after(subscription, now)

    def close(self) -> None:
        """End all watches: the server is shutting down."""
        self._closing = True
        self._hub.end_all(lambda: ShuttingDown("the server is shutting down"))

    async def _messages(self, subscription: Subscription, resume_token: bytes) -> AsyncGenerator[Delivery, None]:
        pace = Pace()
        async with aclosing(self._deliveries(subscription, resume_token)) as deliveries:
            async for delivery in deliveries:
                if subscription.refusal is not None:
                    raise subscription.refusal
                subscription.given_at = time.monotonic()
                yield delivery
                subscription.given_at, subscription.last_given = None, time.monotonic()
                if delivery.event is not None:
                    self._took(subscription, delivery.event, pace)

    async def _deliveries(self, subscription: Subscription, resume_token: bytes) -> AsyncGenerator[Delivery, None]:
        await self._begin(subscription, resume_token)
        yield Delivery(self._hub.tokens.token(subscription.position), is_first=True)
        if resume_token:
            self._observer.replayed("resumed")
        while True:
            async for delivery in self._replay(subscription):
                yield delivery
            while (next_one := await self._next(subscription)) is not None:
                yield next_one
            self._hub.leave(subscription)
            self._observer.replayed("slow")

    async def _begin(self, subscription: Subscription, resume_token: bytes) -> None:
        """Find the place from which on events are wanted."""
        await self._hub.wait_until_started()
        page = await self._tail.read()
        self._hub.check_identity(page)
        if not resume_token:
            subscription.position, subscription.opened = page.end, page
            return
        try:
            position = resolve(self._hub.tokens.place(resume_token), page.identity)
        except LookupError:
            raise interrupted() from None
        if position is None or position < page.horizon or _is_beyond(position, page):
            raise self._expired(page)
        subscription.position = position

    async def _replay(self, subscription: Subscription) -> AsyncIterator[Delivery]:
        """What the log has after the watch's place; ends when the watch is following, with nothing missing."""
        start: Position | None = None
        if subscription.opened is not None and not subscription.has_followed:
            # From now on: the feed is hardly ever further than that.
            start = await self._hub.join(subscription)
        while start is None or subscription.position < start:
            page = await self._log.read(subscription.position, subscription.wanted, start)
            self._hub.check_identity(page)
            if subscription.position < page.horizon:
                raise self._expired(page)
            for event in page.events:
                if not subscription.is_old(event.position):
                    subscription.position = event.position
                    yield Delivery(self._hub.tokens.token(event.position), event)
            subscription.position = page.end
            if subscription.is_bookmark_due:
                yield self._bookmark(subscription)
            if start is None and page.is_last:
                start = await self._hub.join(subscription)

    async def _next(self, subscription: Subscription) -> Delivery | None:
        """What the hub put in, or a bookmark; None: something found no room."""
        while True:
            if subscription.queue:
                delivery = subscription.queue.popleft()
                if delivery.event is not None:
                    subscription.position = delivery.event.position
                return delivery
            if subscription.overflowed:
                return None
            if subscription.is_bookmark_due:
                # All that was published was put in, and taken out.
                subscription.position = max(subscription.position, self._hub.cursor)
                return self._bookmark(subscription)
            await subscription.wait()

    def _bookmark(self, subscription: Subscription) -> Delivery:
        subscription.is_bookmark_due = False
        return Delivery(self._hub.tokens.token(subscription.position))

    def _took(self, subscription: Subscription, event: Event, pace: Pace) -> None:
        """The caller took an event: see whether it keeps up."""
        self._observer.delivered((datetime.now(UTC) - event.create_time).total_seconds())
        if subscription.is_following and not subscription.overflowed:
            pace.caught_up()
        elif pace.falls_behind(event.create_time):
            self._observer.dropped("slow")
            raise SlowWatcher("the caller does not keep up with what happens; go on with the last resume_token")

    def _look_after(self, subscription: Subscription, now: float) -> None:
        limits = self._limits
        if subscription.given_at is not None:
            if now - subscription.given_at >= limits.send_seconds:
                self._observer.dropped("slow")
                seconds = f"{limits.send_seconds:g}"
                subscription.end(SlowWatcher(f"the caller took no message for {seconds} s", {"limit": seconds}))
        elif (
            now - subscription.last_given >= limits.bookmark_seconds
            # Else silence may mean that the log cannot be read; a caller that hears nothing tries another server.
            and self._hub.published_at >= subscription.last_given
        ):
            subscription.is_bookmark_due = True
            subscription.wake()

    def _expired(self, page: LogPage) -> CursorExpired:
        self._observer.dropped("expired")
        oldest = base64.b64encode(self._hub.tokens.token(page.horizon)).decode()
        return CursorExpired(
            "resume_token: events after it are not kept any more; read what you need, then go on with"
            " oldest_resume_token",
            {"field": "resume_token", "oldest_resume_token": oldest},
        )


class _SharedTail:
    """Reads the log's end once for all that ask for it before the statement is sent."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[LogPage] | None = None

    async def read(self) -> LogPage:
        """The end of the log, as it is at some time after the call."""
        if self._next is None:
            self._next = asyncio.create_task(self._read())
            self._next.add_done_callback(_seen)  # though nobody may be there any more to see how it ended
        return await asyncio.shield(self._next)

    async def _read(self) -> LogPage:
        async with self._turn:
            self._next = None  # who asks from now on may know of what this one does not see
            return await self._log.tail()


def _is_beyond(position: Position, tail: LogPage) -> bool:
    """Whether a place, which is always an event's, is one that this log has not come to: an old copy's."""
    return position > tail.horizon and position.xid >= tail.xmax


def _seen(task: "asyncio.Task[LogPage]") -> None:
    if not task.cancelled():
        task.exception()
