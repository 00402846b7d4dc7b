"""The log is trimmed from its oldest end, and says how far before it does so."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest
from session_service.postgres import event_trimmer
from session_service.postgres.event_trimmer import EventTrimmer
from session_service.postgres.pool import Database

from tests.fixtures.postgres import ROLE

DAY = timedelta(days=1)
WEEK = timedelta(days=7)
ADD = """
    INSERT INTO session_events (
        tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, agent_id, session_name, actor
    ) VALUES (1, 1, 1, $1, 0, 1, gen_random_uuid(), gen_random_uuid(), 'a', 's', '')
    RETURNING seq
"""
HORIZON = "SELECT horizon_xid::text::bigint, horizon_seq FROM log_state WHERE source = 0"


class Log:
    """The events of a database."""

    def __init__(self, owner: asyncpg.Connection) -> None:
        self.owner = owner

    async def add(self, *ages: timedelta) -> None:
        for age in ages:
            await self.owner.execute(ADD.replace("$1", "now() - $1::interval"), age)

    async def ages(self) -> list[timedelta]:
        """Ages of what is there, in days, in the order of the log."""
        rows = await self.owner.fetch("SELECT now() - create_time AS age FROM session_events ORDER BY xid, seq")
        return [timedelta(days=round(row["age"] / DAY)) for row in rows]

    async def horizon(self) -> tuple[int, int]:
        return tuple(await self.owner.fetchrow(HORIZON))  # type: ignore[arg-type]  # there is one row


@pytest.fixture
async def log(database_url: str) -> AsyncIterator[Log]:
    owner = await asyncpg.connect(database_url)
    yield Log(owner)
    await owner.close()


@pytest.fixture
async def trimmer(database_url: str) -> AsyncIterator[EventTrimmer]:
    database = await Database.connect(database_url, role=ROLE, pool_size=2)
    yield EventTrimmer(database, WEEK)
    await database.close()


async def finish(trimmer: EventTrimmer) -> int:
    steps = 1
    while await trimmer.step():
        steps += 1
    return steps


async def test_events_are_kept_as_long_as_they_should_be(log: Log, trimmer: EventTrimmer) -> None:
    await log.add(9 * DAY, 8 * DAY, 7 * DAY, 6 * DAY, 0 * DAY)
    await finish(trimmer)
    assert await log.ages() == [6 * DAY, 0 * DAY]
    assert not await trimmer.step()


async def test_the_horizon_is_committed_before_anything_is_removed(log: Log, trimmer: EventTrimmer) -> None:
    await log.add(9 * DAY, 8 * DAY, 6 * DAY)
    places = await log.owner.fetch("SELECT xid::text::bigint, seq FROM session_events ORDER BY xid, seq")
    assert await log.horizon() == (0, 0)
    assert await trimmer.step()
    assert await log.horizon() == tuple(places[1])
    assert len(await log.ages()) == 3
    # Another one goes on where the first one stopped.
    assert await trimmer.step()
    assert await log.ages() == [6 * DAY]
    assert await log.horizon() == tuple(places[1])


async def test_no_piece_is_larger_than_it_should_be(
    log: Log, trimmer: EventTrimmer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_trimmer, "PIECE", 4)
    await log.add(*[9 * DAY] * 10, 1 * DAY)
    counts = [11]
    while await trimmer.step():
        counts.append(len(await log.ages()))
    assert counts[-1] == 1
    assert max(before - after for before, after in pairwise(counts)) == 4


async def test_an_event_from_the_future_keeps_none_of_those_after_it(log: Log, trimmer: EventTrimmer) -> None:
    await log.add(9 * DAY, -1000 * DAY, 8 * DAY, -900 * DAY, 1 * DAY)
    await finish(trimmer)
    assert await log.ages() == [-900 * DAY, 1 * DAY]


async def test_a_young_event_keeps_all_those_after_it(log: Log, trimmer: EventTrimmer) -> None:
    """Another server's clock is slow: what it writes is not as old as it says."""
    await log.add(9 * DAY, 1 * DAY, 8 * DAY, 2 * DAY)
    await finish(trimmer)
    assert await log.ages() == [1 * DAY, 8 * DAY, 2 * DAY]


async def test_nothing_is_trimmed_past_a_transaction_that_may_still_write(
    log: Log, trimmer: EventTrimmer, database_url: str
) -> None:
    await log.add(10 * DAY)
    slow = await asyncpg.connect(database_url)
    async with slow.transaction():
        await slow.fetchval("SELECT pg_current_xact_id()")
        await log.add(9 * DAY)
        await finish(trimmer)
        assert await log.ages() == [9 * DAY]
        await slow.execute(ADD, datetime.now(UTC) - 8 * DAY)
    await slow.close()
    await finish(trimmer)
    assert await log.ages() == []


async def test_two_trimmers_do_not_wait_for_each_other(log: Log, trimmer: EventTrimmer, database_url: str) -> None:
    await log.add(9 * DAY)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT pg_advisory_xact_lock(24151, 0)")
        async with asyncio.timeout(5):
            assert not await trimmer.step()
    await other.close()
    await finish(trimmer)
    assert await log.ages() == []


async def test_events_from_the_future_keep_none_after_them_however_many(log: Log, trimmer: EventTrimmer) -> None:
    await log.add(*[-DAY] * 7, 9 * DAY, 8 * DAY, DAY)
    trim = "SELECT more FROM trim_events_v1(0::smallint, now() - $1::interval, now(), 3)"
    while await log.owner.fetchval(trim, WEEK):
        pass
    assert await log.ages() == [DAY]
