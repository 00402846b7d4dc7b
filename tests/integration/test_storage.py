"""What a save writes and reads, looked up in PostgreSQL itself."""

import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from agent_sessions.v1.session_pb2 import AgentState
from session_service.postgres import stored_state
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.errors import BaseRevisionNotFound, CorruptData, InvalidField, RequestIdReused
from session_service.sessions.model import MAX_VALUES, Change, Save, Saved, SessionKey, Target, Tenant
from session_service.sessions.transcript import MAX_DEPTH

from tests.model.stores import content, delta, postgres_store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@dataclass
class Bench:
    """One session of one agent in a database of its own."""

    store: PostgresSessionStore
    tenant: Tenant
    owner: asyncpg.Connection

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.tenant, "ada", "s")

    async def save(self, texts: str | Sequence[str], **more: Any) -> Saved:
        values = more.pop("values", None)
        save = Save(self.tenant, "ada", "s", content(list(texts), values), "test", request_id=uuid4())
        return await self.store.save(save._replace(**more), NOW)

    async def texts(self, revision: int | None = None, limit: int = 0) -> str:
        found = await self.store.get_revision(self.key, Target(revision=revision), with_state=True, message_limit=limit)
        return "".join(message.text for message in AgentState.FromString(found.state or b"").message_history)

    async def segments(self) -> list[tuple[int, int]]:
        rows = await self.owner.fetch(
            "SELECT first_message, message_count FROM transcript_segments ORDER BY transcript_id, first_message"
        )
        return [(row[0], row[1]) for row in rows]

    async def transcripts(self) -> list[tuple[int, int]]:
        rows = await self.owner.fetch("SELECT parent_message_count, depth FROM transcripts ORDER BY transcript_id")
        return [(row[0], row[1]) for row in rows]


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    owner = await asyncpg.connect(database_url)
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Bench(store, tenant, owner)
    finally:
        await owner.close()


async def test_a_snapshot_that_extends_its_head_stores_what_is_new(bench: Bench) -> None:
    await bench.save("ab")
    await bench.save("abcd")
    await bench.save("abcd")
    assert await bench.segments() == [(0, 2), (2, 2)]
    assert await bench.transcripts() == [(0, 0)]
    assert [await bench.texts(n) for n in (1, 2, 3)] == ["ab", "abcd", "abcd"]


async def test_a_diverging_history_begins_at_the_last_common_message(bench: Bench) -> None:
    await bench.save("abcdef")
    await bench.save("abXY")
    assert await bench.transcripts() == [(0, 0), (2, 1)]
    assert await bench.segments() == [(0, 6), (2, 2)]
    assert [await bench.texts(n) for n in (1, 2)] == ["abcdef", "abXY"]


async def test_a_shorter_history_stores_no_message(bench: Bench) -> None:
    await bench.save("abcdef")
    await bench.save("abc")
    await bench.save("abcde")
    assert await bench.segments() == [(0, 6)]
    await bench.save("abcZ")
    assert await bench.segments() == [(0, 6), (3, 1)]
    assert [await bench.texts(n) for n in (1, 2, 3, 4)] == ["abcdef", "abc", "abcde", "abcZ"]


async def test_a_divergence_in_an_ancestor_branches_from_the_ancestor(bench: Bench) -> None:
    await bench.save("abcdef")
    await bench.save("abcdXY")
    await bench.save("abZ")
    assert await bench.transcripts() == [(0, 0), (4, 1), (2, 1)]
    await bench.save("abZcd")
    await bench.save("abZcQ")
    assert (await bench.transcripts())[-1] == (4, 2)
    assert [await bench.texts(n) for n in range(1, 6)] == ["abcdef", "abcdXY", "abZ", "abZcd", "abZcQ"]


async def test_equal_messages_behind_another_beginning_are_not_taken_for_common(bench: Bench) -> None:
    await bench.save("abcd")
    await bench.save("abXY")
    await bench.save("aQXY")
    assert await bench.texts(3) == "aQXY"
    assert (await bench.transcripts())[-1] == (1, 1)


async def test_too_many_branches_are_written_whole(bench: Bench) -> None:
    text = "0"
    for number in range(MAX_DEPTH + 3):
        text = text[: number + 1] + "ab"[number % 2] + "z"
        await bench.save(text)
        assert await bench.texts() == text
    depths = [depth for _, depth in await bench.transcripts()]
    assert max(depths) == MAX_DEPTH
    assert depths.count(0) == 2


async def test_self_contained_shares_nothing(bench: Bench) -> None:
    await bench.save("abc", values={"big": "v" * 2000})
    await bench.save("abc", values={"big": "v" * 2000}, self_contained=True)
    assert await bench.segments() == [(0, 3), (0, 3)]
    assert await bench.transcripts() == [(0, 0), (0, 0)]


async def test_a_big_value_is_stored_once_for_its_content(bench: Bench) -> None:
    for number in range(5):
        await bench.save("a", values={"big": "v" * 2000, "small": str(number)})
    await bench.save("a", values={"big": "w" * 2000})
    assert await bench.owner.fetchval("SELECT count(*) FROM state_values") == 2


@pytest.mark.parametrize("limit", range(1, 9))
async def test_the_newest_messages_alone_across_branches_and_segments(bench: Bench, limit: int) -> None:
    await bench.save("ab")
    await bench.save("abcdef")
    await bench.save("abcdXY")
    await bench.save("abcdXYZ")
    assert await bench.texts(limit=limit) == "abcdXYZ"[-limit:]
    assert await bench.texts(2, limit) == "abcdef"[-limit:]


async def test_events_are_written_with_what_they_tell_of(bench: Bench) -> None:
    await bench.save("a", client_id="worker-1")
    change = Change(bench.key, "operator", uuid4(), client_id="worker-2")
    await bench.store.restore(change, Target(), 0, NOW)
    await bench.store.delete(replace(change, request_id=uuid4()), purge=False, now=NOW)
    await bench.store.undelete(replace(change, request_id=uuid4()), NOW)
    rows = await bench.owner.fetch("SELECT * FROM session_events ORDER BY xid, seq")
    assert [row["type"] for row in rows] == [1, 2, 3, 4]
    assert {row["revision"] for row in rows} == {1}
    assert [row["client_id"] for row in rows] == ["worker-1"] + ["worker-2"] * 3
    assert [row["actor"] for row in rows] == ["test"] + ["operator"] * 3
    assert len({row["event_id"] for row in rows}) == 4


async def test_a_purge_leaves_only_the_event(bench: Bench) -> None:
    await bench.save("abcd")
    await bench.save("abXY")
    await bench.store.delete(Change(bench.key, "test", uuid4()), purge=True, now=NOW)
    for table in ("sessions", "revisions", "transcripts", "transcript_segments"):
        assert await bench.owner.fetchval(f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608  constants
    assert await bench.owner.fetchval("SELECT count(*) FROM session_events WHERE type = 3") == 1


async def test_no_index_holds_what_a_save_moves(bench: Bench) -> None:
    indexes = await bench.owner.fetch("SELECT indexdef FROM pg_indexes WHERE tablename = 'sessions'")
    moving = ("update_time", "head_", "message_", "size_bytes", "last_restore_time")
    assert len(indexes) > 2
    assert not [row["indexdef"] for row in indexes if any(column in row["indexdef"] for column in moving)]


async def test_an_id_used_again_for_a_delta_on_the_head_is_refused(bench: Bench, database_url: str) -> None:
    first = uuid4()
    await bench.save("a", request_id=first)
    second = uuid4()
    await bench.save("", content=delta(1, ["b"]), request_id=second)
    for number in range(2, 6):
        await bench.save("", content=delta(number, ["c"]))
    for again in (first, second):
        with pytest.raises(RequestIdReused):
            await bench.save("", content=delta(6, ["d"]), request_id=again)
    # Also where nothing of the session is remembered.
    async with postgres_store(database_url) as (other, _):
        save = Save(bench.tenant, "ada", "s", delta(6, ["d"]), "test", request_id=second)
        with pytest.raises(RequestIdReused):
            await other.save(save, NOW)
    assert await bench.texts() == "abcccc"


async def test_deltas_cannot_gather_more_values_than_a_state_may_have(bench: Bench) -> None:
    half = MAX_VALUES * 6 // 10
    await bench.save("a", values={f"a{n}": "x" for n in range(half)})
    more = delta(1, [], values={f"b{n}": "x" for n in range(half)})
    for self_contained in (False, True):
        with pytest.raises(InvalidField, match=f"at most {MAX_VALUES} values in a state, got {2 * half}"):
            await bench.save("", content=more, self_contained=self_contained)
    instead = delta(1, [], values={f"b{n}": "x" for n in range(half)}, remove=[f"a{n}" for n in range(half)])
    await bench.save("", content=instead)


async def test_the_empty_base_has_no_messages_and_no_etag(bench: Bench) -> None:
    with pytest.raises(InvalidField, match=r"delta\.truncate_to"):
        await bench.save("", content=delta(0, ["a"], truncate_to=5))
    with pytest.raises(BaseRevisionNotFound):
        await bench.save("", content=delta(0, ["a"])._replace(base_etag="another's"))
    await bench.save("", content=delta(0, ["a"], truncate_to=0))
    assert await bench.texts() == "a"


async def test_a_repeated_delta_is_replayed_though_its_base_is_damaged_by_now(bench: Bench, database_url: str) -> None:
    await bench.save("a")
    repeated = Save(bench.tenant, "ada", "s", delta(1, ["b"]), "test", request_id=uuid4())
    await bench.store.save(repeated, NOW)
    await bench.owner.execute("UPDATE revisions SET state_digest = state_digest || 'x' WHERE revision = 1")
    async with postgres_store(database_url) as (other, _):
        again = await other.save(repeated, NOW)
    assert (again.replayed, again.revision.revision) == (True, 2)


# ---- long states

LONG = "abcdefghij" * 15
DAMAGE = {
    "payload": "payload = set_byte(payload, 3, get_byte(payload, 3) # 1)",
    "digest": "digest = set_byte(digest, 3, get_byte(digest, 3) # 1)",
    "checksum": "checksum = checksum # 1",
    "raw_size": "raw_size = -1",
    "message_count": "message_count = message_count + 1",
    "codec": "codec = 1 - codec",
    "end_bytes": "end_bytes = end_bytes + 1",
}


async def saved_one_by_one(bench: Bench) -> None:
    for end in range(1, len(LONG) + 1):
        await bench.save(LONG[:end])


async def test_a_long_state_is_read_beside_the_event_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await saved_one_by_one(bench)
    threads: list[threading.Thread] = []
    pieces = stored_state.pieces

    def noting(*given: Any, **more: Any) -> Any:
        threads.append(threading.current_thread())
        return pieces(*given, **more)

    monkeypatch.setattr(stored_state, "pieces", noting)
    assert await bench.texts() == LONG
    assert threads.pop() is not threading.current_thread()
    assert await bench.texts(limit=5) == LONG[-5:]
    assert threads.pop() is threading.current_thread(), "for a few rows, another one takes longer"


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_in_every_way_of_reading(bench: Bench, damage: str) -> None:
    await saved_one_by_one(bench)
    for place in (len(LONG) - 1, len(LONG) - 3, len(LONG) - 40):
        row = f"WHERE first_message = {place}"
        await bench.owner.execute(f"CREATE TABLE kept AS SELECT * FROM transcript_segments {row}")  # noqa: S608
        await bench.owner.execute(f"UPDATE transcript_segments SET {DAMAGE[damage]} {row}")  # noqa: S608
        with pytest.raises(CorruptData):
            await bench.texts()
        for limit in (1, 5, 50):
            if len(LONG) - place <= limit:
                with pytest.raises(CorruptData):
                    await bench.texts(limit=limit)
            else:
                assert await bench.texts(limit=limit) == LONG[-limit:]
        await bench.owner.execute(
            f"DELETE FROM transcript_segments {row}; INSERT INTO transcript_segments TABLE kept; DROP TABLE kept"  # noqa: S608
        )
        assert await bench.texts() == LONG
