"""What an upload writes and when, and how a download reads beside those who change what is read."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from agent_sessions.v1.session_pb2 import AgentState
from session_service.codec import compression
from session_service.postgres import checksums, downloads
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions import fragments, transcript
from session_service.sessions.errors import (
    CheckpointIdExists,
    Contention,
    CorruptData,
    RequestIdReused,
    RevisionMismatch,
    RevisionNotFound,
    SessionDeleted,
    SessionNotFound,
    StateTooLarge,
)
from session_service.sessions.model import Change, Save, Saved, SessionKey, Target, Tenant
from session_service.sessions.placement import bucket_of
from session_service.sessions.store import Upload
from session_service.sessions.transcript import MAX_DEPTH

from tests.model.stores import content, delta, postgres_store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
OF_A_REVISION = ("sessions", "revisions", "session_events", "state_values")
SEGMENT = 20
"""Bytes; a message of one letter has 5."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few letters fill a segment."""
    monkeypatch.setattr(transcript, "SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr(downloads, "PART_BYTES", SEGMENT)


@dataclass
class Bench:
    """One session of one agent in a database of its own."""

    store: PostgresSessionStore
    tenant: Tenant
    owner: asyncpg.Connection

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.tenant, "ada", "s")

    def to_save(self, texts: Sequence[str], **more: Any) -> Save:
        values = more.pop("values", None)
        save = Save(self.tenant, "ada", "s", content(texts, values), "test", request_id=uuid4())
        return save._replace(**more)

    async def save(self, texts: Sequence[str], **more: Any) -> Saved:
        return await self.store.save(self.to_save(texts, **more), NOW)

    async def begin(self, texts: Sequence[str], save: Save, batch: int = 3) -> Upload:
        """Upload these messages, so many at a time, and do not finish."""
        upload = await self.store.begin_upload(save)
        messages = content(texts).messages
        for first in range(0, len(messages), batch):
            await upload.add(messages[first : first + batch])
        return upload

    async def upload(self, texts: Sequence[str], batch: int = 3, **more: Any) -> Saved:
        save = self.to_save([], **more)
        return await (await self.begin(texts, save, batch)).finish(save, NOW)

    async def texts(self, revision: int | None = None, limit: int = 0) -> str:
        """Return the messages by a read, after comparing them with what a download gives."""
        target = Target(revision=revision)
        found = await self.store.get_revision(self.key, target, with_state=True, message_limit=limit)
        state = AgentState.FromString(found.state or b"")
        assert await self.downloaded(revision, limit) == state
        return "".join(message.text for message in state.message_history)

    async def downloaded(self, revision: int | None = None, limit: int = 0) -> AgentState:
        change = Change(self.key, "test", uuid4())
        found = await self.store.download(change, Target(revision=revision), limit, NOW, recorded=False)
        async with aclosing(found.parts) as parts:
            return AgentState.FromString(b"".join([found.state, *[part async for part in parts]]))

    async def rows(self, table: str) -> list[asyncpg.Record]:
        return list(await self.owner.fetch(f"SELECT * FROM {table} ORDER BY 1, 2"))  # noqa: S608  constants

    async def segments(self) -> list[tuple[int, int]]:
        return [(row["first_message"], row["message_count"]) for row in await self.rows("transcript_segments")]

    async def transcripts(self) -> list[tuple[int, int, bool]]:
        """Messages that are the parent's, depth, and whether it is an upload's that did not end."""
        rows = await self.owner.fetch("SELECT * FROM transcripts ORDER BY transcript_id")
        return [(row["parent_message_count"], row["depth"], row["upload_deadline"] is not None) for row in rows]

    async def count(self, table: str) -> int:
        return len(await self.rows(table))


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    owner = await asyncpg.connect(database_url)
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Bench(store, tenant, owner)
    finally:
        await owner.close()


# ---- what is written


async def test_segments_are_written_as_they_come_and_the_revision_last(bench: Bench) -> None:
    save = bench.to_save([], values={"big": "v" * 2000, "small": "x"}, client_id="worker")
    upload = await bench.begin("abcdefghij", save)
    assert await bench.segments() == [(0, 4), (4, 4)]
    assert [await bench.count(table) for table in OF_A_REVISION] == [0] * 4
    assert await bench.transcripts() == [(0, 0, True)]
    saved = await upload.finish(save, NOW)
    assert (saved.revision.revision, saved.revision.message_count, saved.replayed) == (1, 10, False)
    assert await bench.segments() == [(0, 4), (4, 4), (8, 2)]
    assert await bench.transcripts() == [(0, 0, False)]
    assert [row["client_id"] for row in await bench.rows("session_events")] == ["worker"]
    assert await bench.texts() == "abcdefghij"
    assert (await bench.downloaded()).values["big"].data == b"v" * 2000


@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_an_upload_is_what_a_save_of_the_same_state_is(bench: Bench, batch: int) -> None:
    uploaded = await bench.upload("abcdefghijkl", batch, values={"v": "w" * 3000})
    values = {"v": "w" * 3000}
    saved = await bench.save("abcdefghijkl", values=values)
    assert saved.revision.size_bytes == uploaded.revision.size_bytes
    first, second = await bench.rows("revisions")
    for column in ("digest", "state_digest", "state", "message_bytes", "value_digests"):
        assert first[column] == second[column]
    assert first["transcript_id"] == second["transcript_id"]  # so the running digests are right, too


async def test_a_session_goes_on_after_an_upload(bench: Bench) -> None:
    await bench.upload("abcdefghij")
    await bench.save([], content=delta(1, ["k"]))
    await bench.save("abcdefghijkl")
    await bench.upload("abcdefghijklmnopqrstuvwxyz")
    assert [await bench.texts(n) for n in (1, 2, 3, 4)] == [
        "abcdefghij",
        "abcdefghijk",
        "abcdefghijkl",
        "abcdefghijklmnopqrstuvwxyz",
    ]
    assert [await bench.texts(limit=n) for n in (1, 5, 14, 15, 25)] == [
        "abcdefghijklmnopqrstuvwxyz"[-n:] for n in (1, 5, 14, 15, 25)
    ]


async def test_large_messages_are_segments_of_their_own(bench: Bench) -> None:
    texts = ["a", "B" * 50, "C" * 50, "d", "E" * 30, "f", "g"]
    await bench.upload(texts, 2)
    assert await bench.segments() == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 2)]
    assert await bench.texts() == "".join(texts)


async def test_nothing_at_all_can_be_uploaded(bench: Bench) -> None:
    await bench.upload("")
    assert await bench.texts() == ""
    assert await bench.transcripts() == [(0, 0, False)]


# ---- what is stored already


async def test_a_state_that_is_stored_is_not_stored_again(bench: Bench) -> None:
    await bench.save("abcdefghij")
    before = await bench.segments()
    await bench.upload("abcdefghij")
    assert await bench.segments() == before
    assert await bench.transcripts() == [(0, 0, False)]
    assert await bench.texts(2) == "abcdefghij"


async def test_a_little_more_is_appended_and_much_more_has_a_transcript_of_its_own(bench: Bench) -> None:
    await bench.save("abcdefgh")
    await bench.upload("abcdefghij")
    assert await bench.segments() == [(0, 4), (4, 4), (8, 2)]
    assert await bench.transcripts() == [(0, 0, False)]
    await bench.upload("abcdefghijABCDEFGHIJ")
    assert (await bench.segments())[3:] == [(10, 4), (14, 4), (18, 2)]
    assert await bench.transcripts() == [(0, 0, False), (10, 1, False)]
    await bench.upload("abcdefghijABCDEFGHIJKLMNOPQRST")
    assert await bench.transcripts() == [(0, 0, False), (10, 1, False), (20, 2, False)]
    assert await bench.texts() == "abcdefghijABCDEFGHIJKLMNOPQRST"


@pytest.mark.parametrize(
    ("texts", "common"),
    [
        ("Xbcdefghijklmnop", None),
        ("abcdXfghijklmnop", 4),
        ("abcdefgXijklmnop", 4),
        ("abcdefghijklmnoX", 12),
        ("abcdefghiZ", 8),
        ("abcdef", 4),
        ("abc", None),
    ],
)
@pytest.mark.parametrize("batch", [1, 5, 100])
async def test_histories_part_at_the_last_segment_that_is_common(
    bench: Bench, texts: str, common: int | None, batch: int
) -> None:
    await bench.save("abcdefghijklmnop")
    await bench.upload(texts, batch)
    assert (await bench.transcripts())[1:] == [(common or 0, 1 if common else 0, False)]
    assert await bench.texts() == texts
    assert await bench.texts(1) == "abcdefghijklmnop"


async def test_a_history_of_branches_is_followed(bench: Bench) -> None:
    await bench.save("abcdefghijklmnop")
    await bench.save("abcdefXYZUVW")  # a branch within a segment
    await bench.save("abcdefXYQ")
    before = await bench.count("transcript_segments")
    await bench.upload("abcdefXYQ", 2)
    assert await bench.count("transcript_segments") == before
    await bench.upload("abcdefXYQabcdefghijkl", 4)
    assert [await bench.texts(n) for n in range(1, 6)] == [
        "abcdefghijklmnop",
        "abcdefXYZUVW",
        "abcdefXYQ",
        "abcdefXYQ",
        "abcdefXYQabcdefghijkl",
    ]


async def test_many_marks_are_read_page_by_page(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_service.postgres.uploads.MARKS_AT_A_TIME", 2)
    for number in range(1, 12):
        await bench.save("abcdefghijkl"[:number])
    before = await bench.count("transcript_segments")
    await bench.upload("abcdefghijkl", 4)
    assert await bench.count("transcript_segments") == before + 1
    assert await bench.texts() == "abcdefghijkl"


async def test_too_many_branches_are_written_whole(bench: Bench) -> None:
    texts = ""
    for _ in range(MAX_DEPTH + 3):
        texts += "abcdefghij"
        await bench.upload(texts, 50)
    assert await bench.texts() == texts
    depths = [depth for _, depth, _ in await bench.transcripts()]
    assert max(depths) == MAX_DEPTH
    assert depths.count(0) == 2


async def test_self_contained_shares_nothing_and_repairs_values(bench: Bench) -> None:
    values = {"big": "v" * 2000}
    await bench.save("abcdef", values=values)
    await bench.owner.execute("UPDATE state_values SET payload = 'x'")
    await bench.owner.execute("UPDATE transcript_segments SET payload = 'x'")
    await bench.upload("abcdef", values=values, self_contained=True)
    assert await bench.transcripts() == [(0, 0, False), (0, 0, False)]
    assert await bench.texts() == "abcdef"


# ---- all or nothing


async def test_one_that_breaks_leaves_a_transcript_and_nothing_else(bench: Bench) -> None:
    await bench.save("abc")
    before = [await bench.rows(table) for table in OF_A_REVISION]
    await bench.begin("ABCDEFGHIJKLMNOP", bench.to_save([], values={"big": "v" * 2000}))
    assert [await bench.rows(table) for table in OF_A_REVISION] == before
    assert await bench.transcripts() == [(0, 0, False), (0, 0, True)]
    left = await bench.owner.fetch(
        "SELECT FROM transcripts AS t WHERE upload_deadline IS NOT NULL AND NOT EXISTS ("
        "SELECT FROM revisions AS r WHERE r.bucket = t.bucket AND r.transcript_id = t.transcript_id)"
    )
    assert len(left) == 1


async def test_refusals_are_those_of_a_save(bench: Bench) -> None:
    await bench.save("abc", checkpoint_id="k", user_id="u")
    many = "ABCDEFGHIJKLMNOP"
    with pytest.raises(RevisionMismatch) as refused:
        await bench.upload(many, expected_revision=0)
    assert refused.value.metadata == {"expected_revision": "0", "current_revision": "1"}
    with pytest.raises(CheckpointIdExists):
        await bench.upload(many, checkpoint_id="k")
    await bench.store.delete(Change(bench.key, "test", uuid4()), purge=False, now=NOW)
    with pytest.raises(SessionDeleted):
        await bench.upload(many)
    assert await bench.transcripts() == [(0, 0, False), *[(0, 0, True)] * 3]
    assert await bench.count("revisions") == 1


async def test_a_repeated_request_is_replayed_and_an_id_used_again_is_refused(bench: Bench, database_url: str) -> None:
    save = bench.to_save([], expected_revision=0)
    first = await (await bench.begin("abcdefghij", save)).finish(save, NOW)
    await bench.save("abcdefghijk")
    async with postgres_store(database_url) as (other, _):
        bench.store, ours = other, bench.store
        again = await (await bench.begin("abcdefghij", save, 1)).finish(save, NOW)
        bench.store = ours
    assert (again.replayed, again.revision) == (True, first.revision)
    with pytest.raises(RequestIdReused):
        await (await bench.begin("abcdefghiX", save)).finish(save, NOW)
    # One scope with saves of the same state.
    as_save = save._replace(content=content("abcdefghij"))
    assert (await bench.store.save(as_save, NOW)).replayed
    assert await bench.count("revisions") == 2


async def test_uploads_of_one_session_at_once_are_all_kept(bench: Bench) -> None:
    saves = [bench.to_save([], client_id=str(n)) for n in range(8)]
    uploads = await asyncio.gather(*(bench.begin("abcdefghijklm" + str(n), save) for n, save in enumerate(saves)))
    done = await asyncio.gather(*(upload.finish(save, NOW) for upload, save in zip(uploads, saves, strict=True)))
    assert sorted(saved.revision.revision for saved in done) == list(range(1, 9))
    for n, saved in enumerate(done):
        assert await bench.texts(saved.revision.revision) == "abcdefghijklm" + str(n)


async def test_a_save_in_the_middle_of_an_upload_is_followed(bench: Bench) -> None:
    await bench.save("abcdefgh")
    save = bench.to_save([])
    upload = await bench.begin("abcdefghi", save)
    await bench.save("abcdefghX")
    await upload.finish(save, NOW)
    assert [await bench.texts(n) for n in (1, 2, 3)] == ["abcdefgh", "abcdefghX", "abcdefghi"]


@pytest.mark.parametrize("texts", ["abcdefghi", "abcdefghABCDEFGHIJ"])
async def test_what_was_shared_is_gone_by_a_purge(bench: Bench, texts: str) -> None:
    await bench.save("abcdefgh")
    save = bench.to_save([])
    upload = await bench.begin(texts, save)
    await bench.store.delete(Change(bench.key, "test", uuid4()), purge=True, now=NOW)
    with pytest.raises(Contention):
        await upload.finish(save, NOW)
    assert await bench.count("revisions") == await bench.count("sessions") == 0
    # And what shares nothing becomes a new session's first revision.
    await (await bench.begin(texts, save)).finish(save, NOW)
    assert await bench.texts(1) == texts


async def test_an_upload_that_was_removed_meanwhile_is_no_revision(bench: Bench) -> None:
    save = bench.to_save([])
    upload = await bench.begin("abcdefghij", save)
    await bench.owner.execute("DELETE FROM transcripts")
    with pytest.raises(Contention):
        await upload.add(content("k" * 20).messages)
    with pytest.raises(Contention):
        await upload.finish(save, NOW)
    assert await bench.count("revisions") == await bench.count("sessions") == 0


async def test_after_its_deadline_nothing_is_written(bench: Bench) -> None:
    save = bench.to_save([])
    upload = await bench.begin("abcdefghij", save)
    await bench.owner.execute("UPDATE transcripts SET upload_deadline = now()")
    before = await bench.segments()
    with pytest.raises(Contention):
        await upload.add(content("k" * 20).messages)
    with pytest.raises(Contention):
        await upload.finish(save, NOW)
    assert await bench.segments() == before
    assert await bench.count("revisions") == await bench.count("sessions") == 0


async def test_a_collector_that_meets_a_finished_upload_leaves_it(bench: Bench) -> None:
    """As the migration says: at the row's lock it sees that the upload has no deadline any more."""
    save = bench.to_save([])
    upload = await bench.begin("abcdefghij", save)
    await upload.finish(save, NOW)
    gone = await bench.owner.execute("DELETE FROM transcripts WHERE upload_deadline < now() + interval '1 year'")
    assert gone == "DELETE 0"


@pytest.mark.parametrize("texts", ["abcdefghi", "abcdefghABCDEFGHIJ"])
async def test_nothing_begins_with_what_is_being_removed(bench: Bench, texts: str) -> None:
    """A collector removes a suspect piece by piece, the transcript itself last."""
    await bench.save("abcdefgh")
    save = bench.to_save([])
    upload = await bench.begin(texts, save)
    # The head moves, so that the upload has to begin a transcript after the shared messages.
    await bench.save("Z")
    await bench.owner.execute(
        "INSERT INTO suspect_transcripts (bucket, transcript_id, since)"
        " SELECT bucket, transcript_id, '-infinity' FROM transcripts WHERE upload_deadline IS NULL"
    )
    with pytest.raises(Contention):
        await upload.finish(save, NOW)
    assert await bench.count("revisions") == 2
    await bench.owner.execute("DELETE FROM suspect_transcripts")
    await upload.finish(save, NOW)
    assert await bench.texts(3) == texts


@pytest.mark.parametrize("texts", ["abcdefghi", "abcdefghABCDEFGHIJ"])
async def test_what_a_walk_saw_while_it_was_uploaded_can_be_begun_with(bench: Bench, texts: str) -> None:
    """It stays a suspect, for a day before anybody looks, although it has a revision by then."""
    save = bench.to_save([])
    first = await bench.begin("abcdefgh", save)
    await bench.owner.execute(
        "INSERT INTO suspect_transcripts (bucket, transcript_id, since)"
        " SELECT bucket, transcript_id, now() FROM transcripts"
    )
    await first.finish(save, NOW)
    second = bench.to_save([])
    upload = await bench.begin(texts, second)
    await bench.save("Z")
    await upload.finish(second, NOW)
    assert await bench.texts(3) == texts


async def test_no_search_for_what_is_unneeded_begins_while_an_upload_ends(bench: Bench) -> None:
    await bench.save("abcdefgh")
    save = bench.to_save([])
    upload = await bench.begin("abcdefghABCDEFGHIJ", save)
    bucket = bucket_of(bench.tenant, "ada")
    async with bench.owner.transaction():
        assert await bench.owner.fetchval("SELECT begin_search_v1($1)", bucket) is not None
        ending = asyncio.ensure_future(upload.finish(save, NOW))
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not await bench.owner.fetchval(waiting):  # noqa: ASYNC110 - another connection tells
            await asyncio.sleep(0)
        assert not ending.done()
    await ending
    assert await bench.texts() == "abcdefghABCDEFGHIJ"


# ---- reading


async def test_segments_that_are_packed_while_they_are_read(bench: Bench) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    for end in range(1, 27):
        await bench.save(letters[:end])
    change = Change(bench.key, "test", uuid4())
    found = await bench.store.download(change, Target(), 0, NOW, recorded=False)
    received = [found.state, await anext(found.parts)]
    await pack(bench, 2, 14)
    received.append(await anext(found.parts))
    await pack(bench, 14, 26)
    received += [part async for part in found.parts]
    state = AgentState.FromString(b"".join(received))
    assert "".join(message.text for message in state.message_history) == letters
    assert await bench.texts() == letters


async def pack(bench: Bench, first: int, end: int) -> None:
    """Replace the segments between two messages by one, as packing does."""
    rows = await bench.owner.fetch(
        "SELECT * FROM transcript_segments WHERE first_message >= $1 AND first_message < $2 ORDER BY 2", first, end
    )
    runs = [compression.unpack(row["codec"], row["raw_size"], row["payload"]) for row in rows]
    packed = compression.pack(b"".join(runs))
    last = rows[-1]
    columns = (first, end - first, last["end_bytes"], packed.raw_size, packed.codec, last["digest"], packed.payload)
    async with bench.owner.transaction():
        await bench.owner.execute(
            "DELETE FROM transcript_segments WHERE first_message >= $1 AND first_message < $2", first, end
        )
        await bench.owner.execute(
            "INSERT INTO transcript_segments (bucket, tenant_id, transcript_id, first_message, message_count,"
            " end_bytes, raw_size, codec, digest, payload, checksum)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            last["bucket"],
            last["tenant_id"],
            last["transcript_id"],
            *columns,
            checksums.of_segment(*columns),
        )


@pytest.mark.parametrize("again", [False, True])
async def test_a_session_that_is_purged_while_it_is_read(bench: Bench, again: bool) -> None:
    await bench.save("abcdefghijklmnop")
    change = Change(bench.key, "test", uuid4())
    found = await bench.store.download(change, Target(), 0, NOW, recorded=True)
    await anext(found.parts)
    await bench.store.delete(Change(bench.key, "test", uuid4()), purge=True, now=NOW)
    if again:
        await bench.save("ABCDEFGHIJKLMNOP")
    with pytest.raises(SessionNotFound, match="was purged while it was read"):
        await anext(found.parts)


async def test_a_revision_that_is_removed_while_it_is_read(bench: Bench) -> None:
    await bench.save("abcdefghijklmnop")
    found = await bench.store.download(Change(bench.key, "test", uuid4()), Target(), 0, NOW, recorded=False)
    await anext(found.parts)
    await bench.owner.execute("DELETE FROM revisions")
    await bench.owner.execute("DELETE FROM transcript_segments")
    with pytest.raises(RevisionNotFound, match="revision 1 was removed while it was read"):
        await anext(found.parts)


DAMAGE = {
    "payload": "payload = overlay(payload PLACING '\\x00' FROM 3)",
    "digest": "digest = overlay(digest PLACING '\\x00' FROM 3)",
    "codec": "codec = 7",
    "missing": None,
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
async def test_damage_ends_a_download_where_it_is_met(bench: Bench, change: str | None) -> None:
    await bench.save("abcdefgh", values={"big": "v" * 2000})
    await bench.save("abcdefghijkl", values={"big": "v" * 2000})
    where = "WHERE first_message = 8"
    if change:
        await bench.owner.execute(f"UPDATE transcript_segments SET {change} {where}")  # noqa: S608  constants
    else:
        await bench.owner.execute(f"DELETE FROM transcript_segments {where}")  # noqa: S608  constants
    with pytest.raises(CorruptData) as refused:
        await bench.downloaded()
    assert refused.value.metadata == {"revision": "2"}
    assert len((await bench.downloaded(1)).message_history) == 8
    await bench.owner.execute("DELETE FROM state_values")
    with pytest.raises(CorruptData, match="a value is missing"):
        await bench.downloaded(1)


async def test_messages_of_another_revision_are_noticed_by_their_digests(bench: Bench) -> None:
    await bench.save("abcdefghijkl")
    (_, row, _) = await bench.rows("transcript_segments")
    run = fragments.join(content("ABCD").messages)
    packed = compression.pack(run)
    columns = (4, 4, row["end_bytes"], packed.raw_size, packed.codec, row["digest"], packed.payload)
    await bench.owner.execute(
        "UPDATE transcript_segments SET raw_size = $1, codec = $2, payload = $3, checksum = $4 WHERE first_message = 4",
        packed.raw_size,
        packed.codec,
        packed.payload,
        checksums.of_segment(*columns),
    )
    with pytest.raises(CorruptData, match="digest of the messages up to 8"):
        await bench.downloaded()


async def test_a_download_is_recorded_once_and_repeats_the_revision_restored_then(bench: Bench) -> None:
    await bench.save("abcdefgh")
    change = Change(bench.key, "test", uuid4(), client_id="w")
    for _ in range(2):
        found = await bench.store.download(change, Target(), 0, NOW, recorded=True)
        assert (found.revision.revision, found.session.last_restore_time) == (1, NOW)
        await found.parts.aclose()
        await bench.save("abcdefghi")
    restored = await bench.store.restore(change, Target(), 0, NOW)
    assert restored.revision.revision == 1
    events = [row["type"] for row in await bench.rows("session_events")]
    assert sorted(events) == [1, 1, 1, 2]


# ---- what is too large to be read at once


async def test_a_large_state_is_not_read_at_once_but_its_newest_messages_are(bench: Bench, database_url: str) -> None:
    await bench.save("abcdefghijklmnop", values={"v": "w" * 3000})
    size = (await bench.store.get_session(bench.key)).size_bytes
    async with postgres_store(database_url, max_read_bytes=size) as (store, _):
        found = await store.get_revision(bench.key, Target(), with_state=True, message_limit=0)
        assert len(found.state or b"") == size
    async with postgres_store(database_url, max_read_bytes=size - 1) as (store, _):
        with pytest.raises(StateTooLarge) as refused:
            await store.restore(Change(bench.key, "test", uuid4()), Target(), 0, NOW)
        assert refused.value.metadata == {"limit": str(size - 1), "actual": str(size)}
        assert await bench.count("session_events") == 1
        newest = await store.restore(Change(bench.key, "test", uuid4()), Target(), 5, NOW)
        state = AgentState.FromString(newest.state or b"")
        assert "".join(message.text for message in state.message_history) == "lmnop"
        assert state.values["v"].data == b"w" * 3000
        with pytest.raises(StateTooLarge):
            await store.restore(Change(bench.key, "test", uuid4()), Target(), 16, NOW)


def test_four_letters_are_a_segment() -> None:
    assert len(fragments.join(content("abcd").messages)) == SEGMENT
