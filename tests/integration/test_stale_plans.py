"""Plans that were made for a head that is no more, or for tables that were smaller."""

import contextlib
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from session_service.postgres import search, states
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.errors import InvalidField, SessionNotFound
from session_service.sessions.model import Change, Delta, Save, SessionKey, Target
from session_service.sessions.placement import bucket_of

from tests.integration.test_storage import NOW
from tests.model.stores import content, postgres_store


async def test_a_session_that_took_the_name_is_not_taken_for_the_old_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with postgres_store(database_url) as (store, tenant), postgres_store(database_url) as (other, _):
        save = Save(tenant, "ada", "s", content(["old", "and"]), "test", request_id=uuid4())
        first = await store.save(save, NOW)

        # Between the plan of the next save and its flush, the session is purged and made again.
        submit = store._batcher.submit
        interfered = False

        async def interfering(operation: Any) -> Any:
            nonlocal interfered
            if not interfered:
                interfered = True
                key = Change(_key(save), "test", uuid4())
                await other.delete(key, purge=True, now=NOW)
                await other.save(save._replace(content=content(["new"]), request_id=uuid4()), NOW)
            return await submit(operation)

        monkeypatch.setattr(store._batcher, "submit", interfering)
        extended = content(["old", "and", "more"])
        second = await store.save(save._replace(content=extended, request_id=uuid4()), NOW)

        assert interfered
        assert second.session.uid != first.session.uid
        found = await store.get_revision(_key(save), Target(), with_state=True, message_limit=0)
        assert found.state is not None
        assert all(text in found.state for text in (b"old", b"and", b"more"))


def _key(save: Save) -> SessionKey:
    return SessionKey(save.tenant, save.agent_id, save.session_name)


async def test_a_restore_does_not_give_back_what_was_purged(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with postgres_store(database_url) as (store, tenant), postgres_store(database_url) as (other, _):
        save = Save(tenant, "ada", "s", content(["old"]), "test", request_id=uuid4())
        for _ in range(3):
            await store.save(save._replace(request_id=uuid4()), NOW)

        # Between the read of a restore and its event, the session is purged and made again.
        submit = store._batcher.submit
        interfered = False

        async def interfering(operation: Any) -> Any:
            nonlocal interfered
            if not interfered:
                interfered = True
                await other.delete(Change(_key(save), "test", uuid4()), purge=True, now=NOW)
                await other.save(save._replace(content=content(["new"]), request_id=uuid4()), NOW)
            return await submit(operation)

        monkeypatch.setattr(store._batcher, "submit", interfering)
        found = await store.restore(Change(_key(save), "test", uuid4()), Target(), 0, NOW)

        assert interfered
        assert found.revision.revision == found.session.head_revision == 1
        assert found.state is not None
        assert b"new" in found.state
        assert b"old" not in found.state


SEGMENTS = 60
"""Of the session that is read."""
COPIES = 100
"""Made of each row in its own bucket, and as many in others."""
GROW = """
    INSERT INTO {table} SELECT copy.* FROM {table} AS own
    CROSS JOIN generate_series(1, 2 * {copies}) AS n
    CROSS JOIN LATERAL jsonb_populate_record(own, jsonb_build_object(
        'bucket', CASE n % 2 WHEN 0 THEN own.bucket ELSE (own.bucket + n) % 1024 END,
        'session_id', -n, 'session_name', n::text, 'digest', '\\x' || md5(n::text),
        'transcript_id', -n - 1000000 * (to_jsonb(own) ->> 'transcript_id')::bigint
    )) AS copy
"""
TABLES = ("sessions", "revisions", "transcripts", "transcript_segments", "state_values")
ROWS_READ = """
    SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_xact_user_tables
    WHERE relname = ANY ($1) ORDER BY relname
"""


@pytest.mark.parametrize("young", ["empty", "new", "analysed"])
@pytest.mark.parametrize("limit", [0, 3])
async def test_a_plan_made_for_young_tables_still_goes_by_index(database_url: str, young: str, limit: int) -> None:
    """Statistics come later than rows do, and until then a connection keeps its plans."""
    async with postgres_store(database_url) as (store, tenant):
        save = Save(tenant, "ada", "s", content([]), "test", request_id=uuid4())
        owner, connection = await asyncpg.connect(database_url), await store._database.open()
        for table in TABLES:
            await owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        if young != "empty":
            await _save_a_history(store, save)
        if young == "analysed":
            await owner.execute("ANALYZE")
        for _ in range(20):  # PostgreSQL tries plans for the very arguments first
            await _rows_read(connection, _key(save), limit)
        if young == "empty":
            await _save_a_history(store, save)
        for table in TABLES:
            await owner.execute(GROW.format(table=table, copies=COPIES))
        read = await _rows_read(connection, _key(save), limit)
        await owner.close()
        await connection.close()
    # With a limit: the segment where the messages begin is found by reading one row before.
    segments = SEGMENTS if limit == 0 else limit + 1
    # The walk goes from the branch to its parent; a value is read by its digest.
    most = {"sessions": 1, "revisions": 1, "transcripts": 2, "transcript_segments": segments + 2, "state_values": 1}
    assert {table: rows for table, rows in read.items() if rows > most[table]} == {}


async def _save_a_history(store: PostgresSessionStore, save: Save) -> None:
    """A segment for each message, a branch, and a big value."""
    texts = [str(number) for number in range(SEGMENTS)]
    for end in range(1, SEGMENTS):
        await store.save(save._replace(content=content(texts[:end]), request_id=uuid4()), NOW)
    branch = content([*texts[: SEGMENTS - 2], "another"], {"big": "x" * 5000})
    await store.save(save._replace(content=branch, request_id=uuid4()), NOW)


async def _rows_read(
    connection: "asyncpg.Connection[asyncpg.Record]", key: SessionKey, limit: int
) -> Mapping[str, int]:
    """Read the session, and return how many rows of each table that took."""
    async with connection.transaction():  # its counts are told to others later
        before = await connection.fetch(ROWS_READ, TABLES)
        with contextlib.suppress(SessionNotFound):
            await states.read(connection.fetch, key, Target(), limit)
        after = await connection.fetch(ROWS_READ, TABLES)
    return {new["relname"]: new["rows"] - old["rows"] for old, new in zip(before, after, strict=True)}


@pytest.mark.parametrize("young", ["empty", "new"])
async def test_a_search_made_for_young_tables_still_goes_by_index(database_url: str, young: str) -> None:
    async with postgres_store(database_url) as (store, tenant):
        save = Save(tenant, "ada", "s", content([]), "test", request_id=uuid4())
        owner, connection = await asyncpg.connect(database_url), await store._database.open()
        for table in TABLES:
            await owner.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        arguments = (bucket_of(tenant, "ada"), -1, -1, search.PAGE, True)
        if young != "empty":
            await _save_a_history(store, save)
        for _ in range(20):
            await connection.fetch(search.READ, *arguments)
        if young == "empty":
            await _save_a_history(store, save)
        # In front of those of the session, since their numbers are negative; so the page ends where it ends.
        for table in TABLES:
            await owner.execute(GROW.format(table=table, copies=COPIES))
        async with connection.transaction():
            before = await connection.fetch(ROWS_READ, TABLES)
            (page,) = await connection.fetch(search.READ, *arguments)
            after = await connection.fetch(ROWS_READ, TABLES)
        await owner.close()
        await connection.close()
    assert len(page["digests"]) == 1
    assert len(page["transcripts"]) == 2
    read = {new["relname"]: new["rows"] - old["rows"] for old, new in zip(before, after, strict=True)}
    most = {"sessions": 1, "revisions": SEGMENTS, "transcripts": 2, "transcript_segments": 0, "state_values": 0}
    assert {table: rows for table, rows in read.items() if rows > most[table]} == {}


async def test_a_delta_is_not_refused_by_what_is_remembered_of_another_session(database_url: str) -> None:
    async with postgres_store(database_url) as (store, tenant), postgres_store(database_url) as (other, _):
        save = Save(tenant, "ada", "s", content(["a", "b", "c"]), "test", request_id=uuid4())
        await store.save(save, NOW)
        await other.delete(Change(_key(save), "test", uuid4()), purge=True, now=NOW)
        await other.save(save._replace(content=content([*"abcde"]), request_id=uuid4()), NOW)

        shortened = Delta(1, "", 4, (), {}, (), b"")
        saved = await store.save(save._replace(content=shortened, request_id=uuid4()), NOW)
        assert saved.revision.message_count == 4
        longer = save._replace(content=shortened._replace(base_revision=2, truncate_to=5), request_id=uuid4())
        with pytest.raises(InvalidField):
            await store.save(longer, NOW)
