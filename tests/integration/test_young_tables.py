"""What saves read while the tables are young: plans made for empty tables serve until there are statistics."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import asyncpg
import pytest
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.model import Content, Delta, Save, Saved, Tenant

from tests.integration.test_storage import NOW
from tests.model.stores import content, delta, postgres_store

SESSIONS = 300
"""Of one agent, so that they share the beginning of every key."""

ROWS_READ = """
    SELECT t.seq_tup_read + (SELECT sum(i.idx_tup_read) FROM pg_stat_user_indexes AS i WHERE i.relid = t.relid)
    FROM pg_stat_user_tables AS t WHERE t.relname = $1
"""


@pytest.mark.parametrize("together", [1, 16])
async def test_a_save_reads_no_session_but_its_own(database_url: str, together: int) -> None:
    owner = await asyncpg.connect(database_url)
    async with postgres_store(database_url) as (store, tenant):
        await owner.execute("ALTER TABLE sessions SET (autovacuum_enabled = off)")
        names = [f"s{n}" for n in range(SESSIONS)]
        first, others = names[:together], names[together:]
        # The plans of all kinds of saves are made now.
        await _save(store, tenant, first, content(["one"]))
        await _save(store, tenant, first, content(["one", "two"]))
        await _save(store, tenant, first, delta(2, ["three"]))
        await _save(store, tenant, others, content(["one"]))

        before = await _rows_read(store, owner)
        await _save(store, tenant, first, delta(3, ["four"]))
        deltas = await _rows_read(store, owner) - before
        await _save(store, tenant, first, content(["one", "two", "three", "four", "five"]))
        snapshots = await _rows_read(store, owner) - before - deltas
    await owner.close()
    assert together <= deltas <= 2 * together
    assert together <= snapshots <= 4 * together


async def test_a_snapshot_finds_its_request_without_reading_the_history(database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    async with postgres_store(database_url) as (store, tenant):
        await owner.execute("ALTER TABLE revisions SET (autovacuum_enabled = off)")
        ids = [uuid4() for _ in range(100)]
        for number, request_id in enumerate(ids):
            save = Save(tenant, "ada", "long", content([f"{number}"]), "test", request_id=request_id)
            assert not (await store.save(save, NOW)).replayed
        saves = await _rows_read(store, owner, "revisions")
        for number, request_id in enumerate(ids[:20]):
            save = Save(tenant, "ada", "long", content([f"{number}"]), "test", request_id=request_id)
            assert (await store.save(save, NOW)).replayed
        repeats = await _rows_read(store, owner, "revisions") - saves
    await owner.close()
    # The last few rows are read beside the one that is found by the index, and what is read to compare.
    assert saves <= 100 * 15
    assert repeats <= 20 * 15


async def _save(store: PostgresSessionStore, tenant: Tenant, names: Sequence[str], what: Content | Delta) -> None:
    saves = [Save(tenant, "ada", name, what, "test", request_id=uuid4()) for name in names]
    saved: list[Saved] = await asyncio.gather(*(store.save(save, NOW) for save in saves))
    assert not any(one.replayed for one in saved)


async def _rows_read(store: PostgresSessionStore, owner: asyncpg.Connection, table: str = "sessions") -> int:
    connection = await store._batcher._connected()
    await connection.execute("SELECT pg_stat_force_next_flush()")
    await connection.execute("SELECT 1")
    return int(await owner.fetchval(ROWS_READ, table))
