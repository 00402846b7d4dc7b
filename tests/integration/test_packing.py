"""Packing on a real PostgreSQL: fewer rows, the same messages, whatever happens beside it."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from agent_sessions.v1.session_pb2 import AgentState
from session_service.postgres import transcripts
from session_service.postgres.cold_sessions import Rests
from session_service.postgres.packer import Packer, Taken
from session_service.postgres.pool import Database
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.errors import CorruptData, SessionNotFound
from session_service.sessions.model import Change, Save, SessionKey, Target, Tenant
from session_service.sessions.placement import lock_key

from tests.fixtures.packing import Heard
from tests.integration.test_storage import NOW
from tests.model.stores import content, delta, postgres_store

AT_ONCE = Rests(0, 0)
GROWING = Rests(0, 10**9)

SEGMENTS = """
    SELECT first_message, message_count FROM transcript_segments ORDER BY transcript_id, first_message
"""
ORPHANS = """
    SELECT count(*) FROM transcript_segments AS g
    WHERE NOT EXISTS (SELECT FROM transcripts AS t WHERE t.bucket = g.bucket AND t.transcript_id = g.transcript_id)
"""


@dataclass
class Scene:
    """Sessions in a database of their own, and every revision that was ever saved."""

    url: str
    store: PostgresSessionStore
    tenant: Tenant
    owner: "asyncpg.Connection[asyncpg.Record]"
    saved: dict[tuple[str, int], list[str]] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        return self.store._database

    def packer(self, rests: Rests = AT_ONCE, heard: Heard | None = None, **more: Any) -> Packer:
        return Packer(self.database, rests, heard, **({"take_over": True} | more))

    async def pack(self, rests: Rests = AT_ONCE, **more: Any) -> Heard:
        heard = Heard()
        await self.packer(rests, heard, **more).finish()
        return heard

    def key(self, name: str) -> SessionKey:
        return SessionKey(self.tenant, "ada", name)

    async def save(self, name: str, texts: Sequence[str], **more: Any) -> int:
        """Save a snapshot."""
        save = Save(self.tenant, "ada", name, content(texts), "test", request_id=uuid4())._replace(**more)
        return self._keep(name, await self.store.save(save, NOW), texts)

    async def change(self, name: str, base: int, added: Sequence[str], truncate_to: int | None = None) -> int:
        """Save a delta."""
        change = delta(base, added, truncate_to=truncate_to)
        save = Save(self.tenant, "ada", name, change, "test", request_id=uuid4())
        texts = [*(self.saved[name, base] if base else [])[:truncate_to], *added]
        return self._keep(name, await self.store.save(save, NOW), texts)

    def _keep(self, name: str, saved: Any, texts: Sequence[str]) -> int:
        number = saved.revision.revision
        self.saved[name, number] = [*texts]
        return int(number)

    async def one_by_one(self, name: str, texts: Sequence[str]) -> int:
        """Save after every message."""
        number = 0
        for end in range(1, len(texts) + 1):
            number = await self.save(name, texts[:end])
        return number

    async def texts(self, name: str, revision: int | None = None, limit: int = 0) -> list[str]:
        found = await self.store.get_revision(
            self.key(name), Target(revision=revision), with_state=True, message_limit=limit
        )
        return [message.text for message in AgentState.FromString(found.state or b"").message_history]

    async def purge(self, name: str) -> None:
        await self.store.delete(Change(self.key(name), "test", uuid4()), purge=True, now=NOW)
        for place in [place for place in self.saved if place[0] == name]:
            del self.saved[place]

    async def segments(self) -> list[tuple[int, int]]:
        return [tuple(row) for row in await self.owner.fetch(SEGMENTS)]

    async def assert_kept(self) -> None:
        """Every revision comes back as saved, and also its newest messages alone."""
        for (name, revision), texts in self.saved.items():
            assert await self.texts(name, revision) == texts, (name, revision)
            for limit in (1, 3, len(texts) // 2, len(texts) + 1):
                assert await self.texts(name, revision, limit) == (texts[-limit:] if limit else texts), (name, revision)
        assert await self.owner.fetchval(ORPHANS) == 0


@pytest.fixture
async def scene(database_url: str) -> AsyncIterator[Scene]:
    owner = await asyncpg.connect(database_url)
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Scene(database_url, store, tenant, owner)
    finally:
        await owner.close()


def texts(count: int, word: str = "message") -> list[str]:
    return [f"{word} {number} " * (1 + number % 50) for number in range(count)]


async def test_small_segments_become_one(scene: Scene) -> None:
    await scene.one_by_one("s", texts(10))
    before = await scene.owner.fetchval("SELECT sum(length(payload)) FROM transcript_segments")
    heard = await scene.pack()
    after = await scene.owner.fetchval("SELECT sum(length(payload)) FROM transcript_segments")
    assert await scene.segments() == [(0, 10)]
    assert (heard.messages, heard.segments, heard.damaged) == (10, 10, 0)
    assert (heard.bytes_before, heard.bytes_after) == (before, after)
    assert after < before / 2
    await scene.assert_kept()
    assert (await scene.pack()).messages == 0


async def test_a_long_transcript_becomes_segments_of_64_messages(scene: Scene) -> None:
    await scene.one_by_one("s", texts(200))
    await scene.pack()
    assert await scene.segments() == [(0, 64), (64, 64), (128, 72)]
    await scene.assert_kept()
    await scene.one_by_one("s", texts(200))
    await scene.save("s", texts(203))
    await scene.pack()
    assert await scene.segments() == [(0, 64), (64, 64), (128, 75)]
    await scene.assert_kept()


async def test_histories_part_within_packed_segments(scene: Scene) -> None:
    """Branches made before and after packing, whose parent's part ends in the middle of a segment."""
    await scene.one_by_one("s", texts(30))
    await scene.save("s", [*texts(17), "before", "packing"])
    await scene.pack()
    assert await scene.segments() == [(0, 30), (17, 2)]
    # A snapshot that parts within the parent's segment and within its own, a shorter one, and one that goes on.
    await scene.save("s", [*texts(17), "before", "it", "was"])
    await scene.save("s", [*texts(11), "after"])
    await scene.save("s", texts(5))
    await scene.save("s", [*texts(30), "longer"])
    parted = await scene.owner.fetch("SELECT parent_message_count FROM transcripts ORDER BY transcript_id")
    assert [row[0] for row in parted] == [0, 17, 18, 11, 5]
    await scene.assert_kept()
    await scene.pack()
    await scene.assert_kept()


async def test_deltas_on_what_was_packed(scene: Scene, database_url: str) -> None:
    head = await scene.one_by_one("s", texts(40))
    await scene.pack()
    for truncate_to in (40, 39, 20, 1, 0):
        head = await scene.change("s", 40, [f"from {truncate_to}"], truncate_to)
    for base in (3, 17, head):
        head = await scene.change("s", base, ["branch"])
        head = await scene.change("s", head, ["of a branch"])
    await scene.assert_kept()
    await scene.pack()
    # Digests in the middle of a packed segment are those that a snapshot has.
    async with postgres_store(database_url) as (other, _):
        for (name, number), saved in list(scene.saved.items()):
            save = Save(scene.tenant, "ada", f"{name} {number}", content(saved), "test", request_id=uuid4())
            await other.save(save, NOW)
    digests = await scene.owner.fetch(
        "SELECT count(DISTINCT r.digest) FROM revisions AS r JOIN sessions AS s USING (bucket, session_id)"
        " GROUP BY CASE session_name WHEN 's' THEN revision::text ELSE split_part(session_name, ' ', 2) END"
    )
    assert {row[0] for row in digests} == {1}
    await scene.assert_kept()


async def test_a_growing_transcript_is_not_rewritten_at_each_message(scene: Scene) -> None:
    written = 0
    for end in range(1, 257):
        await scene.save("s", ["x"] * end)
        written += (await scene.pack(GROWING)).messages
    assert written <= 256 * 6
    assert len(await scene.segments()) <= 4 + 2 * 3 + 3
    await scene.assert_kept()
    await scene.pack()
    assert await scene.segments() == [(first, 64) for first in range(0, 256, 64)]


async def test_what_was_left_of_a_growing_transcript_is_packed_when_it_has_rested_for_long(scene: Scene) -> None:
    await scene.one_by_one("s", texts(3))
    assert (await scene.pack(GROWING)).messages == 0
    await scene.owner.execute("UPDATE sessions SET update_time = now() - interval '1 hour'")
    assert (await scene.pack(Rests(0, 7200))).messages == 0
    assert (await scene.pack(Rests(0, 1800))).messages == 3
    await scene.assert_kept()


async def test_a_transcript_that_the_head_has_left_is_packed_to_its_end(scene: Scene) -> None:
    await scene.one_by_one("s", texts(3))
    assert (await scene.pack(GROWING)).messages == 0
    await scene.save("s", [*texts(2), "another"])
    assert (await scene.pack(GROWING)).messages == 3
    assert await scene.segments() == [(0, 3), (2, 1)]
    await scene.assert_kept()


async def test_only_what_rests_is_packed(scene: Scene) -> None:
    await scene.one_by_one("resting", texts(9))
    await scene.one_by_one("busy", texts(9))
    await scene.owner.execute("UPDATE sessions SET update_time = now() WHERE session_name = 'busy'")
    await scene.owner.execute(
        "UPDATE sessions SET update_time = now() - interval '61 s' WHERE session_name = 'resting'"
    )
    heard = await scene.pack(Rests(60))
    assert heard.messages == 9
    assert len(await scene.segments()) == 10


async def test_a_walk_of_many_sessions_goes_on_where_another_stopped(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_service.postgres.cold_sessions.WALKED", 7)
    monkeypatch.setattr("session_service.postgres.cold_sessions.FOUND", 3)
    for number in range(20):
        await scene.store.save(
            Save(scene.tenant, f"agent {number}", "s", content(["a"]), "test", request_id=uuid4()), NOW
        )
        await scene.store.save(
            Save(scene.tenant, f"agent {number}", "s", content(["a", "b"]), "test", request_id=uuid4()), NOW
        )
    first = Heard()
    packer = scene.packer(heard=first)
    while first.segments < 16:
        assert await packer.step()
    await packer._walk.release()
    second = Heard()
    other = scene.packer(heard=second, take_over=False)
    while await other.step():
        pass
    assert len(await scene.segments()) == 20
    assert 24 >= second.segments >= 16
    assert await scene.owner.fetchval("SELECT count(*) FROM packed_sessions") == 20


async def test_what_is_known_of_purged_sessions_is_forgotten(scene: Scene) -> None:
    for name in ("a", "b", "c"):
        await scene.one_by_one(name, texts(3))
    await scene.pack()
    assert await scene.owner.fetchval("SELECT count(*) FROM packed_sessions") == 3
    await scene.purge("a")
    await scene.purge("c")
    await scene.pack()
    assert await scene.owner.fetchval("SELECT count(*) FROM packed_sessions") == 1


async def test_one_packs_at_a_time(scene: Scene) -> None:
    for name in ("a", "b"):
        await scene.one_by_one(name, texts(9))
    first = scene.packer(take_over=False)
    second = scene.packer(take_over=False)
    assert await first.step()
    assert not await second.step()
    # A server that died is replaced when its lease has ended.
    await scene.owner.execute("UPDATE packing_state SET held_until = now() - interval '1 s'")
    assert await second.step()
    # The first does not go on with what it had begun.
    assert not await first.step()
    while await second.step():
        pass
    assert await scene.segments() == [(0, 9), (0, 9)]
    await scene.assert_kept()


async def test_a_packer_whose_place_was_taken_writes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.one_by_one("s", texts(9))
    packer = scene.packer()
    replace = packer._replace

    async def later(*arguments: Any) -> None:
        await scene.owner.execute("UPDATE packing_state SET holder = gen_random_uuid()")
        await replace(*arguments)

    monkeypatch.setattr(packer, "_replace", later)
    with pytest.raises(Taken):
        await packer.finish()
    assert len(await scene.segments()) == 9


SEVENTH = " WHERE first_message = 7 AND transcript_id = (SELECT min(transcript_id) FROM transcripts)"
LEFT = f"SELECT * FROM transcript_segments {SEVENTH}"  # noqa: S608  constants
DAMAGE = {
    "payload": "UPDATE transcript_segments SET payload = set_byte(payload, 3, get_byte(payload, 3) # 1)",
    "digest": "UPDATE transcript_segments SET digest = set_byte(digest, 3, get_byte(digest, 3) # 1)",
    "checksum": "UPDATE transcript_segments SET checksum = checksum # 1",
    "raw_size": "UPDATE transcript_segments SET raw_size = -1",
    "message_count": "UPDATE transcript_segments SET message_count = message_count + 1",
    "codec": "UPDATE transcript_segments SET codec = 1 - codec",
    "end_bytes": "UPDATE transcript_segments SET end_bytes = end_bytes + 1",
    "missing": "DELETE FROM transcript_segments",
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_segment_is_left_as_it_is(scene: Scene, damage: str) -> None:
    await scene.one_by_one("s", texts(20))
    await scene.one_by_one("whole", texts(20))
    await scene.owner.execute(DAMAGE[damage] + SEVENTH)
    left = await scene.owner.fetch(LEFT)
    heard = await scene.pack()
    assert await scene.owner.fetch(LEFT) == left
    assert heard.damaged == (damage != "missing")
    for revision in range(1, 21):
        assert await scene.texts("whole", revision) == texts(revision)
        if revision <= 7:
            assert await scene.texts("s", revision) == texts(revision)
        else:
            with pytest.raises(CorruptData):
                await scene.texts("s", revision)
    assert len(await scene.segments()) == 3 + (damage != "missing")
    # self_contained heals, and packing goes on.
    await scene.save("s", texts(20), self_contained=True)
    await scene.one_by_one("other", texts(3))
    await scene.pack()
    assert await scene.texts("s") == texts(20)


async def test_restores_saves_and_purges_beside_packing(scene: Scene, database_url: str) -> None:
    """Each sees what was saved, whatever packing does meanwhile; a purge leaves nothing."""
    chance = random.Random(5)  # noqa: S311  no secret
    names = [f"s{number}" for number in range(6)]
    async with postgres_store(database_url) as (store, _), _packing_all_the_time(database_url) as heard:
        other = Scene(database_url, store, scene.tenant, scene.owner, scene.saved)
        while heard.messages <= 200:  # beside what they do; how soon depends on who gets the processor
            await asyncio.gather(*(_live(scene, name, chance) for name in names))
        await asyncio.gather(*(_read(one, name) for name in names for one in (scene, other)))
        for name in names[:3]:
            await other.purge(name)
    await scene.assert_kept()
    await scene.pack()
    await scene.assert_kept()
    for name in names[3:]:
        await scene.purge(name)
    assert await scene.segments() == []


async def _live(scene: Scene, name: str, chance: random.Random) -> None:
    """Save, branch, go back, and read, in turns; purge now and then."""
    head = 0
    for number in range(60):
        before = scene.saved.get((name, head), [])
        match chance.randrange(12):
            case 0 if head:
                keep = chance.randrange(len(before) + 1)
                head = await scene.save(name, [*before[:keep], f"edited {number}"])
            case 1 if head:
                base = chance.randrange(1, head + 1)
                keep = chance.randrange(len(scene.saved[name, base]) + 1)
                head = await scene.change(name, base, [f"branched {number}"], keep)
            case 2 if head and number % 4 == 0:
                await scene.purge(name)
                head = 0
            case 3 if head:
                await _read(scene, name)
            case _:
                head = await scene.save(name, [*before, f"{name} {number} " * 20])


async def _read(scene: Scene, name: str) -> None:
    for (of, revision), saved in list(scene.saved.items()):
        if of == name:
            assert await scene.texts(name, revision) == saved
            assert await scene.texts(name, revision, 3) == saved[-3:]


@asynccontextmanager
async def _packing_all_the_time(database_url: str) -> AsyncIterator[Heard]:
    """Pack small segments, again and again, over connections of its own."""
    database = await Database.connect(database_url, role="session_service_runtime", pool_size=2)
    heard = Heard()

    async def work() -> None:
        while True:
            with suppress(Taken):
                await Packer(database, AT_ONCE, heard, take_over=True, target=7).finish(rounds=1)

    task = asyncio.create_task(work())
    try:
        yield heard
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await database.close()


async def test_a_purge_that_waits_for_packing_leaves_nothing(scene: Scene) -> None:
    """The purge began before the packed row was there: without the session's lock it would not see that."""
    await scene.one_by_one("s", texts(9))
    blocker = await asyncpg.connect(scene.url)
    try:
        await blocker.execute("BEGIN; SELECT pg_advisory_lock(77)")
        await scene.owner.execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_advisory_xact_lock(77); RETURN NEW; END';"
            " CREATE TRIGGER wait AFTER INSERT ON transcript_segments FOR EACH ROW EXECUTE FUNCTION wait()"
        )
        packing = asyncio.create_task(scene.pack())
        await _until(scene.owner, WAITING, 77)
        purging = asyncio.create_task(scene.purge("s"))
        await _until(scene.owner, WAITING_OR_DONE, lock_key(scene.key("s")))
        await blocker.execute("SELECT pg_advisory_unlock(77); COMMIT")
        assert (await packing).messages == 9
        await purging
    finally:
        await blocker.close()
    with pytest.raises(SessionNotFound):
        await scene.texts("s")
    assert await scene.segments() == []


WAITING = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32) | objid::bigint = $1
"""
# A purge that does not wait for the lock has got as far as the rows.
WAITING_OR_DONE = f"""
    SELECT ({WAITING}) + (
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
            AND query LIKE '%purge_session%'
    )
"""  # noqa: S608  constants


async def _until(connection: "asyncpg.Connection[asyncpg.Record]", query: str, *arguments: object) -> None:
    async with asyncio.timeout(20):
        while not await connection.fetchval(query, *arguments):  # noqa: ASYNC110  another session's lock has no event
            await asyncio.sleep(0.005)


async def test_a_session_that_is_being_changed_is_left_for_later(scene: Scene) -> None:
    for name in ("busy", "free"):
        await scene.one_by_one(name, texts(9))
    async with scene.owner.transaction():
        await scene.owner.execute("SELECT pg_advisory_xact_lock($1)", lock_key(scene.key("busy")))
        heard = Heard()
        assert await scene.packer(heard=heard).finish(rounds=1) == 1
    assert (heard.messages, len(await scene.segments())) == (9, 10)
    assert (await scene.pack()).messages == 9
    await scene.assert_kept()


async def test_rows_that_changed_since_they_were_read_stay(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.one_by_one("s", texts(9))
    packer = scene.packer()
    replace = packer._replace

    async def later(*arguments: Any) -> None:
        await scene.owner.execute("UPDATE transcript_segments SET checksum = checksum # 1 WHERE first_message = 4")
        await replace(*arguments)

    monkeypatch.setattr(packer, "_replace", later)
    assert await packer.finish(rounds=1) == 1
    assert len(await scene.segments()) == 9


@pytest.mark.parametrize("kind", ["snapshot", "delta"])
async def test_histories_part_at_the_last_common_message_whatever_is_packed_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Before each statement of a plan, the segments become larger ones."""
    fetch = scene.database.fetch
    sizes: Iterator[int] = iter(())

    async def packing_first(query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        if query in (transcripts.MARKS, transcripts.SEGMENT) and (size := next(sizes, None)):
            with monkeypatch.context() as undone:
                undone.setattr(scene.database, "fetch", fetch)
                await scene.owner.execute("DELETE FROM packed_sessions")
                await scene.pack(target=size)
        return await fetch(query, *arguments)

    monkeypatch.setattr(scene.database, "fetch", packing_first)
    for number, (keep, *growth) in enumerate(product((13, 28), (1, 3), (5,), (64,))):
        name = f"s{number}"
        sizes = iter(())
        await scene.one_by_one(name, texts(30))
        sizes = iter(growth)
        if kind == "snapshot":
            await scene.save(name, [*texts(keep), "parting"])
        else:
            await scene.change(name, 30, ["parting"], keep)
        shared = await scene.owner.fetchval("SELECT parent_message_count FROM transcripts ORDER BY 1 DESC LIMIT 1")
        assert shared == keep, growth
        assert await scene.texts(name) == [*texts(keep), "parting"]
        assert await scene.texts(name, 30) == texts(30)
        await scene.purge(name)


class StoppingDatabase:
    """A Database of which nothing is left after so many statements: before one, or after it was carried out."""

    def __init__(self, database: Database, statements: int, *, before: bool) -> None:
        self._database = database
        self._left = statements
        self._before = before

    async def fetch(self, query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        found: Sequence[asyncpg.Record] = await self._carry_out(self._database.fetch, query, *arguments)
        return found

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        found: asyncpg.Record | None = await self._carry_out(self._database.fetchrow, query, *arguments)
        return found

    async def _carry_out(self, run: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        self._left -= 1
        if self._left <= 0 and self._before:
            raise asyncio.CancelledError
        found = await run(*arguments)
        if self._left <= 0:
            raise asyncio.CancelledError
        return found


@pytest.mark.parametrize("before", [True, False])
async def test_a_packer_may_die_between_any_two_statements(scene: Scene, before: bool) -> None:
    for statements in range(1, 60):
        for name in ("a", "b"):
            await scene.one_by_one(name, texts(5))
            await scene.save(name, [*texts(3), "another"])
        database: Any = StoppingDatabase(scene.database, statements, before=before)
        try:
            await Packer(database, AT_ONCE, take_over=True, target=3).finish()
        except asyncio.CancelledError:
            await scene.assert_kept()
            await scene.pack(target=3)
            finished = False
        else:
            finished = True
        assert await scene.segments() == [(0, 5), (3, 1)] * 2
        await scene.assert_kept()
        if finished:
            assert statements > 12
            return
        for name in ("a", "b"):
            await scene.purge(name)
    pytest.fail("it never came to its end")


async def test_a_broken_session_keeps_the_walk_from_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        await scene.one_by_one(name, texts(5))
    packer = scene.packer()
    replace, broken = packer._replace, lock_key(scene.key("b"))

    async def fails(key: int, *arguments: Any) -> None:
        if key == broken:
            raise ValueError("a mistake of the program")
        await replace(key, *arguments)

    monkeypatch.setattr(packer, "_replace", fails)
    await packer.finish()
    assert len(await scene.segments()) == 1 + 1 + 5
    await scene.assert_kept()
