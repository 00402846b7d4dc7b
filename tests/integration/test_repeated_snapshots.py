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


class Sessions:
    """Sessions of one agent in a database of its own."""

    def __init__(self, store: PostgresSessionStore, tenant: Tenant, owner: asyncpg.Connection) -> None:
        self._store = store
        self._tenant = tenant
        self.owner = owner

    async def save(self, name: str, text: str, request_id: UUID) -> Saved:
        save = Save(self._tenant, "ada", name, content([text]), "test", request_id=request_id)
        return await self._store.save(save, NOW)

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
