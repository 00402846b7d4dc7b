"""No interleaving of transactions, feeds, replays and slow readers loses, repeats or reorders an event."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from session_service.events import subscription
from session_service.sessions.events import Event

from tests.unit.service.watching.fake_log import FakeLog, random_delay
from tests.unit.service.watching.watcher import Room, Watcher, hint, room, wanting


def ids(events: list[Event]) -> list[UUID]:
    return [event.event_id for event in events]


class Writers:
    """Transactions that overlap, some of them rolled back."""

    def __init__(self, place: Room, chance: random.Random, delay: Callable[[], Awaitable[None]]) -> None:
        self._place = place
        self._chance = chance
        self._delay = delay
        self.committed: list[Event] = []
        """In the order in which they were committed."""

    async def write(self, count: int) -> None:
        log, chance = self._place.log, self._chance
        for _ in range(count):
            xid = log.begin()
            written = []
            for _ in range(chance.randrange(1, 4)):
                await self._delay()
                event = log.write(
                    xid,
                    kind=chance.choice((1, 1, 1, 2)),
                    agent_id=chance.choice("ab"),
                    session_name=chance.choice("st"),
                )
                written.append(event)
            await self._delay()
            if chance.random() < 0.15:
                log.roll_back(xid)
            else:
                log.commit(xid)
                self.committed += written
            if chance.random() < 0.7:
                hint(self._place)


@pytest.mark.parametrize("seed", range(40))
async def test_no_interleaving_loses_repeats_or_reorders(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlapping transactions, feeds, replays, joins and slow readers in random order."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    monkeypatch.setattr(subscription, "QUEUE", chance.choice((1, 3, 256)))
    delay = random_delay(chance)
    log = FakeLog(page=chance.choice((1, 3, 50)), delay=delay)
    async with room(log, poll=0.005) as place:
        writers = Writers(place, chance, delay)
        writing = [asyncio.create_task(writers.write(25)) for _ in range(4)]
        watched: list[tuple[set[UUID], set[UUID], list[Watcher], object]] = []

        async def watch_for_a_while() -> None:
            wanted = wanting(chance.choice(((1,), (2,), (1, 2))), *chance.choice(((), ("a",), ("b", "s"))))
            await delay()
            before = {event.event_id for event in writers.committed}
            parts = [Watcher(place.watches, wanted)]
            await parts[0].created.wait()
            at_created = {event.event_id for event in writers.committed}
            watched.append((before, at_created, parts, wanted))
            for _ in range(chance.randrange(4)):
                parts[-1].pause = delay if chance.random() < 0.7 else None
                for _ in range(chance.randrange(30)):
                    await asyncio.sleep(0)
                await parts[-1].stop()
                parts.append(Watcher(place.watches, wanted, parts[-1].token))

        await asyncio.gather(*writing, *(watch_for_a_while() for _ in range(8)))
        for before, at_created, parts, wanted in watched:
            matching = [
                event
                for event in sorted(writers.committed)
                if event.type in wanted.types  # type: ignore[attr-defined]
                and wanted.agent_id in ("", event.agent_id)  # type: ignore[attr-defined]
                and wanted.session_name in ("", event.session_name)  # type: ignore[attr-defined]
            ]
            needed = [event for event in matching if event.event_id not in at_created]
            last = parts[-1]
            await last.until(
                lambda _, parts=parts, needed=needed: (
                    {e.event_id for e in needed}  # type: ignore[misc]
                    <= {e.event_id for p in parts for e in p.events}
                )
            )
            given = [event for part in parts for event in part.events]
            # A reconnect goes on after the last message, so here not even it repeats anything.
            assert given == sorted(set(given))
            assert not before & set(ids(parts[0].events))
            assert set(ids(needed)) <= set(ids(given)) <= set(ids(matching))
            await last.stop()
