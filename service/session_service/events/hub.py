"""From the feed to all watches of this process.

A watch is *following* while the hub puts into its queue what the feed reads, or it *reads the log by itself*: at first,
if it goes on from a token, and whenever its queue was full. So a caller that does not keep up holds a bounded queue and
nothing else: neither the feed nor the other watches wait for it.

From reading to following without a gap: the hub tells at which place it begins to put events in (between two pages of
the feed, and only once the feed reads all types that the watch wants); up to that place the watch reads by itself.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from session_service.events.hints import Hint, Hints
from session_service.events.observer import SilentWatchObserver, WatchObserver
from session_service.events.subscription import Route, Subscription
from session_service.events.tokens import Tokens
from session_service.sessions.errors import DatabaseUnavailable, SessionServiceError
from session_service.sessions.events import START, Delivery, LogIdentity, LogPage, Position

FEED_PATIENCE = 5.0
"""Seconds that a watch waits for the feed's first look at the log."""


class _Joining(NamedTuple):
    """A watch that wants to follow."""

    subscription: Subscription
    start: "asyncio.Future[Position]"
    """From where on events are put in, once they are."""


class Hub:
    """All watches of this process; the feed's FeedSink."""

    def __init__(self, hints: Hints, observer: WatchObserver | None = None) -> None:
        """`hints`: the feed's, to be told that other events are wanted now."""
        self._hints = hints
        self._observer = observer or SilentWatchObserver()
        self._all: set[Subscription] = set()
        self._routes: dict[Route, set[Subscription]] = {}
        self._types: Counter[int] = Counter()
        self._identity: LogIdentity | None = None
        self.tokens: Tokens
        """Of the log that the feed follows; there once it has started."""
        self.published_at = -math.inf
        """When (time.monotonic) the log was last read."""
        self.cursor = START
        """Everything up to here was put in."""
        self._being_read: frozenset[int] | None = None
        """The types that the feed is reading now."""
        self._joining: list[_Joining] = []
        self._started = asyncio.Event()

    @property
    def count(self) -> int:
        """Watches going on."""
        return len(self._all)

    def subscriptions(self) -> Sequence[Subscription]:
        """All of them now."""
        return [*self._all]

    def add(self, subscription: Subscription) -> None:
        """A watch begins."""
        self._all.add(subscription)

    def remove(self, subscription: Subscription) -> None:
        """A watch has ended."""
        self.leave(subscription)
        self._all.discard(subscription)

    def end_all(self, refusal: Callable[[], SessionServiceError]) -> None:
        """End all watches; `refusal` makes an error for each: one raised in many tasks gathers their tracebacks."""
        for subscription in self.subscriptions():
            subscription.end(refusal())

    # What the feed calls.

    def wanted_types(self) -> frozenset[int]:
        """See FeedSink."""
        return frozenset(+self._types)

    def reading(self) -> frozenset[int]:
        """See FeedSink."""
        self._being_read = self.wanted_types()
        return self._being_read

    def publish(self, page: LogPage) -> None:
        """See FeedSink."""
        for event in page.events:
            delivery: Delivery | None = None
            for route in _routes(event.tenant_id, event.agent_id, event.session_name):
                for subscription in self._routes.get(route, ()):
                    if delivery is None:
                        delivery = Delivery(self.tokens.token(event.position), event)
                    subscription.offer(delivery)
        self.cursor = page.end
        self.published_at = time.monotonic()
        self._let_all_in()

    def start(self, page: LogPage) -> None:
        """See FeedSink."""
        if self._identity is not None:
            # What was given out may be another log's, or something may have been missed: the tokens tell.
            for _ in self._all:
                self._observer.dropped("log_changed")
            self.end_all(interrupted)
        self._identity = page.identity
        self._started.set()
        self.tokens = Tokens(page.identity)
        self.cursor = page.end
        self._let_all_in()

    def failed(self) -> None:
        """See FeedSink."""
        self._let_all_in()

    # What a watch calls.

    async def join(self, subscription: Subscription) -> Position:
        """Let the hub put in all events after the place that is returned."""
        if not subscription.wanted.types <= self.wanted_types():
            self._hints.tell(Hint.WATCHES)
        self._types.update(subscription.wanted.types)
        subscription.is_counted = True
        joining = _Joining(subscription, asyncio.get_running_loop().create_future())
        self._joining.append(joining)
        # What is being read may lack some of the types.
        if self._being_read is None or subscription.wanted.types <= self._being_read:
            self._let_in(joining)
        return await joining.start

    def _let_all_in(self) -> None:
        """Between two pages."""
        self._being_read = None
        for joining in [*self._joining]:
            self._let_in(joining)

    def _let_in(self, joining: _Joining) -> None:
        self._joining.remove(joining)
        if joining.start.done():  # it has gone meanwhile
            return
        joining.subscription.is_following = joining.subscription.has_followed = True
        self._routes.setdefault(joining.subscription.route, set()).add(joining.subscription)
        joining.start.set_result(self.cursor)

    def leave(self, subscription: Subscription) -> None:
        """Put nothing in any more."""
        self._joining = [one for one in self._joining if one.subscription is not subscription]
        if subscription.is_counted:
            subscription.is_counted = False
            self._types.subtract(subscription.wanted.types)
        followers = self._routes.get(subscription.route)
        if followers is not None:
            followers.discard(subscription)
            if not followers:
                del self._routes[subscription.route]
        subscription.is_following = subscription.overflowed = False
        subscription.queue.clear()

    def check_identity(self, page: LogPage) -> None:
        """See that a page is of the log that the feed follows. Raises: DatabaseUnavailable."""
        if page.identity != self._identity:
            raise interrupted()

    async def wait_until_started(self) -> None:
        """Wait for the feed's first look at the log. Raises: DatabaseUnavailable."""
        if self._identity is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(FEED_PATIENCE):
                    await self._started.wait()
        if self._identity is None:
            raise DatabaseUnavailable("the log of events cannot be read now")


def _routes(tenant_id: int, agent_id: str, session_name: str) -> tuple[Route, Route, Route]:
    return Route(tenant_id), Route(tenant_id, agent_id), Route(tenant_id, agent_id, session_name)


def interrupted() -> DatabaseUnavailable:
    """What a watch is told that cannot go on without a gap."""
    return DatabaseUnavailable("the log of events was interrupted; go on with the last resume_token")
