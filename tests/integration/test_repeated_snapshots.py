"""Snapshots without precondition, found again by an index that has eight bytes of two longer ids."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.model import Save, Saved, Tenant

from tests.model.stores import content, postgres_store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

FURTHER = 10
"""Saves after which a request is found by the index only: the last eight revisions are looked at besides."""

TWO_OF_ONE_HASH = """
    SELECT array_agg(id) FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 600000)) AS ids
    GROUP BY uuid_hash(id) HAVING count(*) > 1 LIMIT 1
"""
"""Of so many, about 40 pairs have one."""

# $1 revisions of the one session that there is; $2 others of $3 revisions each, in $4 buckets
OLDER = """
    INSERT INTO revisions (
        session_id, revision, tenant_id, parent_revision, transcript_id, message_count, message_bytes, size_bytes,
        create_time, bucket, state_raw_size, checksum, state_codec, unconditional, request_id, fingerprint, digest,
        state_digest, state
    )
    SELECT
        s.id, -100 - n, 1, 0, 1, 1, 1, 1, now(), s.bucket, 1, 1, 0, true, gen_random_uuid(), 'f', 'd', 's', 'x'
    FROM (
        SELECT session_id AS id, bucket, $1::integer AS size FROM sessions
        UNION ALL
        SELECT session_id + other, (bucket + other % $4::integer) % 1024, $3
        FROM sessions CROSS JOIN generate_series(1, $2::integer) AS other
    ) AS s CROSS JOIN LATERAL generate_series(1, s.size) AS n
"""
"""Numbered downwards, so that they are not among the last ones."""

READS = """
    SELECT sum(idx_scan) FILTER (WHERE indexrelname = 'revisions_repeated')::integer AS scans,
        sum(idx_tup_read)::integer AS rows
    FROM pg_stat_user_indexes WHERE relname = 'revisions'
"""


class Sessions:
    """Sessions of one agent in a database of its own."""

    def __init__(self, store: PostgresSessionStore, tenant: Tenant, owner: asyncpg.Connection) -> None:
        self._store = store
        self._tenant = tenant
        self.owner = owner

    async def save(self, name: str, text: str, request_id: UUID) -> Saved:
        save = Save(self._tenant, "ada", name, content([text]), "test", request_id=request_id)
        return await self._store.save(save, NOW)

    async def reads(self) -> asyncpg.Record:
        """How often the index was used, and how many rows were read of the table, until now."""
        connection = await self._store._batcher._connected()
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await connection.execute("SELECT 1")
        (row,) = await self.owner.fetch(READS)
        return row

    async def go_on(self, name: str) -> None:
        for number in range(FURTHER):
            await self.save(name, f"further {number}", uuid4())


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[Sessions]:
    owner = await asyncpg.connect(database_url)
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Sessions(store, tenant, owner)
    finally:
        await owner.close()


async def test_requests_of_one_session_stay_together_in_the_index(sessions: Sessions) -> None:
    places = await sessions.owner.fetch(
        "SELECT s, min(request_place(s, gen_random_uuid())), max(request_place(s, gen_random_uuid()))"
        " FROM generate_series(1, 5) AS s CROSS JOIN generate_series(1, 1000) GROUP BY s ORDER BY s"
    )
    assert all(row["s"] << 32 <= row["min"] < row["max"] < row["s"] + 1 << 32 for row in places)


@pytest.mark.parametrize(
    ("of_one", "others", "of_each", "buckets"), [(500, 600, 500, 256), (5000, 20_000, 3, 1), (500, 600, 50, 1024)]
)
@pytest.mark.parametrize("analyzed", ["at first", "at last"])
async def test_a_request_is_looked_for_by_the_index_whatever_the_statistics_say(
    sessions: Sessions, of_one: int, others: int, of_each: int, buckets: int, analyzed: str
) -> None:
    """A session's revisions are all in one bucket, but the planner does not know that."""
    request_id = uuid4()
    await sessions.owner.execute("ALTER TABLE revisions SET (autovacuum_enabled = off)")
    await sessions.save("s", "first", request_id)
    if analyzed == "at first":
        await sessions.owner.execute("VACUUM ANALYZE revisions")
    await sessions.owner.execute(OLDER, of_one, others, of_each, buckets)
    if analyzed == "at last":
        await sessions.owner.execute("VACUUM ANALYZE revisions")
    before = await sessions.reads()
    assert not (await sessions.save("s", "second", uuid4())).replayed
    again = await sessions.save("s", "first", request_id)
    after = await sessions.reads()
    assert (again.replayed, again.revision.revision) == (True, 1)
    assert after["scans"] - before["scans"] >= 2
    assert after["rows"] - before["rows"] <= 60


async def test_two_requests_of_one_hash_are_told_apart(sessions: Sessions) -> None:
    one, other = (await sessions.owner.fetchval(TWO_OF_ONE_HASH))[:2]
    first = await sessions.save("s", "one", one)
    await sessions.go_on("s")
    second = await sessions.save("s", "other", other)
    assert not second.replayed
    await sessions.go_on("s")
    for saved, text, request_id in ((first, "one", one), (second, "other", other)):
        again = await sessions.save("s", text, request_id)
        assert (again.replayed, again.revision.revision) == (True, saved.revision.revision)


async def test_one_request_to_two_sessions_whose_ids_end_alike_is_two_requests(sessions: Sessions) -> None:
    request_id = uuid4()
    await sessions.save("s", "s", request_id)
    await sessions.go_on("s")
    await sessions.owner.execute("SELECT setval('session_ids', (SELECT session_id + 2147483647 FROM sessions))")
    made = await sessions.save("other", "first", uuid4())
    ids = [row["session_id"] for row in await sessions.owner.fetch("SELECT session_id FROM sessions ORDER BY 1")]
    assert ids[1] - ids[0] == 2147483648
    assert not made.replayed
    assert not (await sessions.save("other", "other", request_id)).replayed
    await sessions.go_on("other")
    assert (await sessions.save("s", "s", request_id)).revision.revision == 1
    assert (await sessions.save("other", "other", request_id)).revision.revision == 2
