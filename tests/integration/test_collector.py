"""What nothing needs is removed, and nothing else is."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from agent_sessions.v1.session_pb2 import AgentState
from session_service.postgres.collector import Collector
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.errors import RequestIdReused, RevisionMismatch, SessionNotFound
from session_service.sessions.model import Change, Save, Saved, SessionKey, Target, Tenant
from session_service.sessions.placement import bucket_of

from tests.faults.database import until
from tests.fixtures.collecting import WALK_NOW, collect_all, collector, orphans, wrong_rows
from tests.integration.test_storage import NOW
from tests.model.stores import content, delta, postgres_store

BIG, OTHER = {"big": "v" * 2000}, {"other": "w" * 3000}
GARBAGE = [("state_values", 1), ("suspect_values", 1)]
"""What the purge of a session with one value of its own leaves."""

LOCKS_WAITED_FOR = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objsubid = 2 AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
SUSPECT_ALL = """
    INSERT INTO suspect_values (bucket, tenant_id, agent_id, digest, session_id)
    SELECT bucket, tenant_id, agent_id, digest, 0 FROM state_values
"""
# Whoever inserts a revision waits until (1, 1) is free.
SLOW_SAVES = """
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared(1, 1); RETURN NEW; END';
    CREATE TRIGGER slow BEFORE INSERT ON revisions FOR EACH ROW EXECUTE FUNCTION be_slow();
    SELECT pg_advisory_lock(1, 1);
"""


class Bench:
    """A store in a database of its own."""

    def __init__(self, url: str, store: PostgresSessionStore, tenant: Tenant, owner: asyncpg.Connection) -> None:
        self.url = url
        self.store = store
        self.tenant = tenant
        self.owner = owner

    def key(self, name: str, agent: str = "ada") -> SessionKey:
        return SessionKey(self.tenant, agent, name)

    async def save(
        self, name: str, texts: str | Sequence[str], values: dict[str, str] | None = None, **more: Any
    ) -> Saved:
        agent = more.pop("agent_id", "ada")
        save = Save(self.tenant, agent, name, content(list(texts), values), "test", request_id=uuid4())
        return await self.store.save(save._replace(**more), NOW)

    async def purge(self, name: str, agent: str = "ada") -> None:
        await self.store.delete(Change(self.key(name, agent), "test", uuid4()), purge=True, now=NOW)

    async def state(self, name: str, revision: int | None = None, agent: str = "ada") -> tuple[str, dict[str, str]]:
        key, target = self.key(name, agent), Target(revision=revision)
        found = await self.store.get_revision(key, target, with_state=True, message_limit=0)
        state = AgentState.FromString(found.state or b"")
        texts = "".join(message.text for message in state.message_history)
        return texts, {name: value.data.decode() for name, value in state.values.items()}

    async def count(self, table: str) -> int:
        return int(await self.owner.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608  constants


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A bench; what a test leaves must be collectable to the last row."""
    owner = await asyncpg.connect(database_url)
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Bench(database_url, store, tenant, owner)
            await collect_all(database_url)
            assert await orphans(database_url) == []
    finally:
        await owner.close()


@pytest.fixture
async def collecting(database_url: str) -> AsyncIterator[Collector]:
    async with collector(database_url) as opened:
        yield opened


UPLOADS = "SELECT transcript_id FROM transcripts WHERE upload_deadline IS NOT NULL"


async def finish(collecting: Collector) -> None:
    while await collecting.step():
        pass


async def test_a_purge_leaves_a_value_that_is_then_collected(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abc", BIG)
    assert not await collecting.step()
    await bench.purge("s")
    assert await orphans(bench.url) == GARBAGE
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.count("state_values") == 0


async def test_a_value_that_another_session_needs_is_kept(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abc", BIG | OTHER)
    await bench.save("t", "x", BIG)
    await bench.save("t", "xy")  # only an old revision needs it
    await bench.save("s", "x", BIG | OTHER, agent_id="bob")
    await bench.purge("s")
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.count("state_values") == 3
    assert await bench.state("t", 1) == ("x", BIG)
    assert await bench.state("s", agent="bob") == ("x", BIG | OTHER)
    await bench.purge("t")
    await finish(collecting)
    assert await bench.count("state_values") == 2


async def broken_upload(bench: Bench, parent: int | None = None, segments: int = 3, deadline: str | None = None) -> int:
    """Write a transcript that no revision uses, as an upload that broke off leaves it, or (no deadline) a mistake."""
    number = int(await bench.owner.fetchval("SELECT nextval('transcript_ids')"))
    bucket = bucket_of(bench.tenant, "ada")
    start = 2 if parent else 0
    await bench.owner.execute(
        "INSERT INTO transcripts VALUES ($1, $2, $3, $4, $5, $6, '', 0)",
        *(number, bench.tenant.tenant_id, parent, start, bucket, int(bool(parent))),
    )
    if deadline:
        await bench.owner.execute(
            "UPDATE transcripts SET upload_deadline = now() + $1::text::interval WHERE transcript_id = $2",
            *(deadline, number),
        )
    for place in range(segments):
        await bench.owner.execute(
            "INSERT INTO transcript_segments VALUES ($1, $2, $3, 0, $4, 1, 1, 0, 0, '', 'x')",
            *(number, start + place, bench.tenant.tenant_id, bucket),
        )
    return number


async def test_an_upload_that_broke_off_is_collected_with_what_began_in_it(bench: Bench) -> None:
    await bench.save("s", "abcd")
    first = await broken_upload(bench)
    await broken_upload(bench, first)
    await broken_upload(bench, await bench.owner.fetchval("SELECT min(transcript_id) FROM transcripts"))
    await collect_all(bench.url)
    assert await orphans(bench.url) == []
    assert await bench.count("transcripts") == 1
    assert await bench.state("s") == ("abcd", {})


async def test_what_a_broken_upload_left_is_found_without_a_walk(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abcd")
    await broken_upload(bench, deadline="-2 minutes")
    under_way = await broken_upload(bench, deadline="-10 seconds")
    await finish(collecting)
    assert [row["transcript_id"] for row in await bench.owner.fetch(UPLOADS)] == [under_way]
    assert await bench.count("suspect_transcripts") == 0
    assert await bench.state("s") == ("abcd", {})


async def test_broken_uploads_are_collected_however_many(
    bench: Bench, collecting: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_service.postgres.collector.PIECE_ROWS", 2)
    for _ in range(5):
        await broken_upload(bench, deadline="-2 minutes", segments=1)
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.count("transcripts") == 0


async def test_what_is_being_removed_or_uploaded_is_no_damage(bench: Bench, collecting: Collector) -> None:
    for texts in ("abcdef", "abcxyz", "abcxq"):
        await bench.save("s", texts)
    # A long session is purged in pieces, and so is a long transcript.
    await bench.owner.execute("UPDATE sessions SET message_bytes = 20000000")
    oldest = await bench.owner.fetchval("SELECT min(transcript_id) FROM transcripts")
    await broken_upload(bench, oldest, segments=0, deadline="1 hour")
    await bench.purge("s")
    steps = 0
    while await collecting.step():
        missing = [row for row in await wrong_rows(bench.url) if "missing" in row]
        assert missing == []
        steps += 1
    assert steps > 5


async def test_a_transcript_without_a_revision_is_left_alone_as_long_as_an_upload_may_take(bench: Bench) -> None:
    await broken_upload(bench)
    await bench.owner.execute(WALK_NOW)
    async with collector(bench.url, keep=timedelta(hours=1)) as patient:
        await finish(patient)
        assert await bench.count("transcripts") == 1
        await bench.owner.execute("UPDATE suspect_transcripts SET since = since - interval '59 minutes'")
        await finish(patient)
        assert await bench.count("transcripts") == 1
        await bench.owner.execute("UPDATE suspect_transcripts SET since = since - interval '1 minute'")
        await finish(patient)
    assert await orphans(bench.url) == []
    assert await bench.count("transcripts") == 0


async def test_a_transcript_that_got_its_revision_meanwhile_is_kept(bench: Bench) -> None:
    await bench.save("s", "abcd")
    upload = await broken_upload(bench)
    await bench.owner.execute(WALK_NOW)
    async with collector(bench.url, keep=timedelta(hours=1)) as patient:
        await finish(patient)
        await bench.owner.execute("UPDATE revisions SET transcript_id = $1", upload)
        await bench.owner.execute("UPDATE suspect_transcripts SET since = '-infinity'")
        await finish(patient)
    assert await bench.count("suspect_transcripts") == 0
    assert await bench.owner.fetchval("SELECT count(*) FROM transcripts WHERE transcript_id = $1", upload) == 1


async def test_what_only_a_descendant_needs_is_kept(bench: Bench) -> None:
    await bench.save("s", "abcdef")
    await bench.save("s", "abcdXY")
    await bench.save("s", "abcdXZ")
    # As pruning will do it.
    await bench.owner.execute("DELETE FROM revisions WHERE revision < 3")
    await collect_all(bench.url)
    assert await bench.count("transcripts") == 3
    assert await bench.state("s") == ("abcdXZ", {})


async def test_segments_without_a_transcript_are_collected(bench: Bench) -> None:
    upload = await broken_upload(bench)
    await bench.owner.execute("DELETE FROM transcripts WHERE transcript_id = $1", upload)
    await collect_all(bench.url)
    assert await bench.count("transcript_segments") == 0


async def test_a_long_session_is_purged_at_once_and_removed_piece_by_piece(
    bench: Bench, collecting: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_service.postgres.collector.PIECE_ROWS", 7)
    await bench.save("s", "abc", BIG)
    for number in range(1, 40):
        await bench.save("s", "", content=delta(number, ["x"]))
    await bench.save("s", "abcY", OTHER)
    await bench.save("t", "a", OTHER)
    await bench.owner.execute("UPDATE sessions SET head_revision = head_revision + 500 WHERE session_name = 's'")
    purge = Change(bench.key("s"), "test", uuid4())
    gone = await bench.store.delete(purge, purge=True, now=NOW)
    assert (gone.session_name, gone.head_revision, gone.delete_time) == ("s", 541, NOW)
    again = await bench.store.delete(purge, purge=True, now=NOW)
    assert (again.session_name, again.head_revision) == ("s", 541)
    with pytest.raises(SessionNotFound):
        await bench.state("s")
    await bench.save("s", "another")
    assert await bench.count("revisions") > 40
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.count("revisions") == 2
    assert await bench.state("s") == ("another", {})
    assert await bench.state("t") == ("a", OTHER)


@pytest.mark.parametrize("wrong", ["expected", "reused", "missing"])
async def test_a_purge_of_a_long_session_is_refused_like_any_other(bench: Bench, wrong: str) -> None:
    await bench.save("s", "abc", BIG)
    await bench.owner.execute("UPDATE sessions SET head_revision = 501")
    await bench.owner.execute("UPDATE revisions SET revision = 501")
    change = Change(bench.key("s"), "test", uuid4(), expected_revision=501)
    if wrong == "expected":
        with pytest.raises(RevisionMismatch):
            await bench.store.delete(replace(change, expected_revision=500), purge=True, now=NOW)
    elif wrong == "reused":
        await bench.store.delete(change, purge=False, now=NOW)
        with pytest.raises(RequestIdReused):
            await bench.store.delete(change, purge=True, now=NOW)
    else:
        with pytest.raises(SessionNotFound):
            await bench.store.delete(replace(change, key=bench.key("t")), purge=True, now=NOW)
    assert await bench.count("sessions") == 1
    assert await bench.count("purged_sessions") == 0
    assert await bench.count("suspect_values") == 0
    await bench.owner.execute("UPDATE sessions SET head_revision = 1; UPDATE revisions SET revision = 1")


async def searched(bench: Bench, collecting: Collector) -> None:
    """Save a value, purge it, and let the collector come to where it has read everything and has not ended yet.

    What is saved to the session "t" now, the search does not meet: it has read "u", which comes after it.
    """
    await bench.save("t", "x")
    await bench.save("u", "x")
    await bench.save("s", "abc", BIG)
    await bench.purge("s")
    await collecting.step()  # it begins
    await collecting.step()  # it reads
    assert await bench.count("suspect_values") == 1


async def test_a_save_that_names_a_suspect_before_the_search_ends_keeps_it(bench: Bench, collecting: Collector) -> None:
    await searched(bench, collecting)
    await bench.save("t", "x", BIG)
    await finish(collecting)
    assert await bench.state("t") == ("x", BIG)
    assert await orphans(bench.url) == []


async def test_a_delta_that_shares_what_was_named_during_the_search_finds_it(
    bench: Bench, collecting: Collector
) -> None:
    await searched(bench, collecting)
    await bench.save("t", "", content=delta(1, ["y"], values=BIG))
    # Names it by its digest alone, after a head that is remembered.
    await bench.save("t", "", content=delta(2, ["z"]))
    await finish(collecting)
    assert await bench.state("t") == ("xyz", BIG)
    assert await orphans(bench.url) == []


async def test_a_save_after_the_search_stores_the_value_again(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abc", BIG)
    await bench.purge("s")
    await finish(collecting)
    assert await bench.count("state_values") == 0
    await bench.save("t", "x", BIG)
    assert await bench.state("t") == ("x", BIG)


async def test_a_search_begins_after_the_saves_that_are_under_way(bench: Bench, collecting: Collector) -> None:
    """One found the value stored before it was a suspect, and has not committed: a search would not meet it."""
    await bench.save("s", "abc", BIG)
    await bench.owner.execute(SLOW_SAVES)
    saving = asyncio.ensure_future(bench.save("t", "x", BIG))
    await until(lambda: bench.owner.fetchval(LOCKS_WAITED_FOR, 1))
    await bench.purge("s")
    assert await collecting.step()
    assert collecting._under_way is None
    assert await bench.count("suspect_values") == 1
    await bench.owner.execute("SELECT pg_advisory_unlock(1, 1)")
    await saving
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.state("t") == ("x", BIG)


async def test_a_save_waits_for_the_end_of_a_search(bench: Bench, collecting: Collector) -> None:
    """The collector has removed the value and has not committed."""
    await bench.save("s", "abc", BIG)
    await bench.purge("s")
    connection = await asyncpg.connect(bench.url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        seen = await connection.fetchval("SELECT begin_search_v1($1)::text", bucket_of(bench.tenant, "ada"))
        removed = await connection.fetchval(
            "SELECT collect_values_v1($1, $2::text::pg_snapshot, $3, $4, array(SELECT digest FROM suspect_values), $5)",
            *(bucket_of(bench.tenant, "ada"), seen, [bench.tenant.tenant_id], ["ada"], [False]),
        )
        assert removed == 1
        saving = asyncio.ensure_future(bench.save("t", "x", BIG))
        await until(lambda: bench.owner.fetchval(LOCKS_WAITED_FOR, 24150))
        assert not saving.done()
        await transaction.commit()
        await saving
    finally:
        await connection.close()
    assert await bench.state("t") == ("x", BIG)


async def test_a_search_that_another_ended_ends_in_nothing(bench: Bench, collecting: Collector) -> None:
    await searched(bench, collecting)
    await collect_all(bench.url)
    assert await bench.count("state_values") == 0
    # The very value again: stored anew where the search has been, and a suspect anew.
    await bench.save("v", "x", BIG)
    await bench.purge("v")
    await bench.save("t", "xy", BIG)
    await bench.owner.execute(SUSPECT_ALL)
    before = await bench.owner.fetch("SELECT * FROM suspect_values")
    assert len(before) == 1
    assert collecting._under_way is not None
    while collecting._under_way:
        await collecting._go_on(collecting._under_way)
    assert await bench.owner.fetch("SELECT * FROM suspect_values") == before
    assert await bench.count("state_values") == 1


async def test_two_collectors_do_not_do_the_same(bench: Bench, collecting: Collector) -> None:
    await searched(bench, collecting)
    async with collector(bench.url) as other:
        assert not await other.step()
        # The first one is gone.
        await bench.owner.execute("UPDATE collection_state SET held_until = now() - interval '1 second'")
        await finish(other)
    assert await orphans(bench.url) == []
    await finish(collecting)


async def test_two_collectors_at_once_and_purges_beside_them(bench: Bench) -> None:
    done = asyncio.Event()

    async def collect(collecting: Collector) -> None:
        while not done.is_set():
            collecting._held_until = float("inf")  # it believes to be alone
            await collecting.step()

    async def live(number: int) -> None:
        for turn in range(12):
            name = f"s{number}"
            await bench.save(name, "abc", BIG if turn % 2 else BIG | OTHER)
            await bench.save(name, "abX", OTHER if turn % 3 else BIG)
            assert await bench.state(name) == ("abX", OTHER if turn % 3 else BIG)
            assert (await bench.state(name, 1))[0] == "abc"
            if turn % 4:
                await bench.purge(name)

    async with collector(bench.url) as one, collector(bench.url) as two:
        await bench.owner.execute(WALK_NOW)
        collectors = [asyncio.create_task(collect(one)), asyncio.create_task(collect(two))]
        await asyncio.gather(*map(live, range(6)))
        done.set()
        await asyncio.gather(*collectors)


async def test_a_collector_that_dies_at_any_step_leaves_the_rest_to_the_next(bench: Bench) -> None:
    steps = 0
    while True:
        await bench.save("s", "abc", BIG)
        await bench.save("s", "aXY", OTHER)
        await bench.save("t", "x", OTHER)
        await bench.save("long", "x", BIG)
        await bench.save("long", "y", OTHER)
        await bench.owner.execute("UPDATE sessions SET head_revision = 501 WHERE session_name = 'long'")
        await bench.purge("s")
        await bench.purge("long")
        await broken_upload(bench)
        await bench.owner.execute(WALK_NOW)
        async with collector(bench.url) as dying:
            more = True
            for _ in range(steps):
                more = more and await dying.step()
        assert await bench.state("t") == ("x", OTHER)
        await collect_all(bench.url)
        assert await orphans(bench.url) == []
        if not more:
            break
        steps += 1
    assert steps > 10


async def test_damaged_rows_stop_nothing(bench: Bench) -> None:
    await bench.save("s", "abcd", BIG)
    await bench.save("s", "abXY", OTHER)
    await bench.save("t", "abcd", BIG)
    await bench.save("u", "abcd", OTHER)
    broken = await broken_upload(bench)
    for damage in (
        "UPDATE revisions SET value_digests = value_digests || 'x' WHERE session_id = 1",
        "UPDATE revisions SET value_digests = 'short' WHERE session_id = 2",
        "UPDATE revisions SET transcript_id = 999 WHERE session_id = 3",
        "UPDATE transcripts SET parent_transcript_id = transcript_id WHERE parent_transcript_id IS NULL",
        "UPDATE transcript_segments SET raw_size = CASE first_message WHEN 0 THEN 2147483647 ELSE -5 END",
    ):
        await bench.owner.execute(damage)
    await bench.purge("s")
    await bench.owner.execute("UPDATE revisions SET transcript_id = 999 WHERE session_id = 3")
    await collect_all(bench.url)
    assert await bench.owner.fetchval("SELECT count(*) FROM transcripts WHERE transcript_id = $1", broken) == 0
    assert await bench.count("suspect_transcripts") == await bench.count("suspect_values") == 0
    await bench.owner.execute("DELETE FROM sessions; DELETE FROM revisions")


async def test_a_search_reads_page_by_page(
    bench: Bench, collecting: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("session_service.postgres.search.PAGE", 3)
    monkeypatch.setattr("session_service.postgres.search.MOST_SUSPECTS", 2)
    monkeypatch.setattr("session_service.postgres.walk.MOST_SUSPECTS", 2)
    monkeypatch.setattr("session_service.postgres.walk.LISTED", 2)
    values = {f"v{n}": f"{n}" * 1500 for n in range(9)}
    for number, (name, value) in enumerate(values.items()):
        await bench.save(f"s{number}", "ab", {name: value})
        await bench.save(f"s{number}", "abc", {name: value, "another": value[::-1] + "x"})
        await broken_upload(bench)
    for number in range(0, 9, 2):
        await bench.purge(f"s{number}")
    await collect_all(bench.url)
    assert await orphans(bench.url) == []
    assert await bench.count("state_values") == 8
    for number in range(1, 9, 2):
        assert await bench.state(f"s{number}", 1) == ("ab", {f"v{number}": f"{number}" * 1500})


async def test_whoever_finds_nothing_to_collect_does_not_take_the_work(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abc", BIG)
    for _ in range(3):
        assert not await collecting.step()
    assert await bench.owner.fetchval("SELECT holder FROM collection_state") is None
