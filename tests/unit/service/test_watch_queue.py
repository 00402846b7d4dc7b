"""The queue of a watch whose caller does not keep up."""

import asyncio
import uuid
from datetime import UTC, datetime

from session_service.events.subscription import QUEUE, Subscription
from session_service.sessions.events import Delivery, Event, EventFilter, EventType, Position
from session_service.sessions.model import Tenant

TENANT = Tenant(1, "default", b"")
ONE_TYPE = EventFilter(frozenset({EventType.RESTORED}), TENANT)


def delivery(number: int) -> Delivery:
    some = uuid.uuid4()
    event = Event(Position(number, number), EventType.RESTORED, 1, "a", "s", 1, datetime.now(UTC), some, some, "", "")
    return Delivery(b"", event)


async def test_nothing_is_put_in_behind_what_found_no_room() -> None:
    subscription = Subscription(ONE_TYPE, asyncio.timeout(None))
    subscription.position = Position(0, 0)
    for number in range(1, QUEUE + 2):
        subscription.offer(delivery(number))
    assert subscription.overflowed
    # The caller takes one, so there is room: for the one that was left out, which only the log still has.
    subscription.queue.popleft()
    subscription.offer(delivery(QUEUE + 2))
    numbers = [one.event.position.xid for one in subscription.queue if one.event]
    assert numbers == list(range(2, QUEUE + 1))
