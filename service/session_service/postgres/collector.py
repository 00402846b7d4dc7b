"""Removes what nothing needs any more: values, transcripts, and the revisions of long sessions that were purged."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import uuid4

from session_service.postgres.pool import Database
from session_service.postgres.search import MOST_SUSPECTS, Suspects, ValueKey, acquit, columns, pieces
from session_service.postgres.walk import walk
from session_service.sessions.observer import Observer, SilentObserver

HOLD = timedelta(seconds=10)
"""How long others leave the work to whoever did the last of it."""

KEEP = timedelta(hours=25)
"""How long a transcript without a revision is kept from when a walk first saw it: longer than any upload may take."""

GRACE = timedelta(minutes=1)
"""From an upload's deadline until what it left is removed: longer than any of its statements takes."""

WALK_EVERY = timedelta(days=1)
"""Time between the beginnings of two walks over everything stored."""

PIECE_ROWS, PIECE_BYTES = 500, 4 << 20
"""What one transaction removes at most: some milliseconds."""

PIECE_VALUES = 16
"""The same, of values: these are up to a request's size each."""

# $1 how long a transcript without a revision is kept, $2 bucket after which to look first, $3 see GRACE.
LOOK = """
    SELECT
        EXISTS (
            SELECT FROM transcripts AS u WHERE u.upload_deadline < now() - $3::interval AND NOT EXISTS (
                SELECT FROM suspect_transcripts AS t
                WHERE t.bucket = u.bucket AND t.transcript_id = u.transcript_id AND t.since = '-infinity'
            )
        ) AS uploads_broken,
        c.walk_bucket, c.next_walk <= now() AS walk_due, p.bucket AS purged_bucket, p.session_id AS purged_session,
        coalesce(
            (SELECT v.bucket FROM suspect_values AS v WHERE v.bucket > $2 ORDER BY v.bucket LIMIT 1),
            (SELECT v.bucket FROM suspect_values AS v ORDER BY v.bucket LIMIT 1)
        ) AS bucket_of_values,
        coalesce(
            (SELECT t.bucket FROM suspect_transcripts AS t WHERE t.bucket > $2 AND t.since <= now() - $1::interval
                ORDER BY t.bucket LIMIT 1),
            (SELECT t.bucket FROM suspect_transcripts AS t WHERE t.since <= now() - $1::interval
                ORDER BY t.bucket LIMIT 1)
        ) AS bucket_of_transcripts
    FROM collection_state AS c
    LEFT JOIN (SELECT x.bucket, x.session_id FROM purged_sessions AS x ORDER BY x.bucket, x.session_id LIMIT 1) AS p
        ON true
    WHERE c.id = 0
"""
TAKE = """
    UPDATE collection_state SET holder = $1, held_until = now() + $2::interval
    WHERE id = 0 AND (holder = $1 OR held_until < now())
    RETURNING holder
"""
# Spans agents: $1 see GRACE, $2 most.
SUSPECT_UPLOADS = """
    INSERT INTO suspect_transcripts AS s (bucket, transcript_id, since)
    SELECT u.bucket, u.transcript_id, '-infinity' FROM transcripts AS u
    WHERE u.upload_deadline < now() - $1::interval AND NOT EXISTS (
        SELECT FROM suspect_transcripts AS t
        WHERE t.bucket = u.bucket AND t.transcript_id = u.transcript_id AND t.since = '-infinity'
    )
    ORDER BY u.upload_deadline LIMIT $2
    ON CONFLICT (bucket, transcript_id) DO UPDATE SET since = excluded.since
"""
DRAIN = "SELECT drain_purged_v1($1, $2, $3, $4)"
BEGIN = "SELECT begin_search_v1($1)::text"
# $1 bucket, $2 what was committed when the search began, $3 most.
SUSPECT_VALUES = """
    SELECT DISTINCT tenant_id, agent_id, digest FROM (
        SELECT tenant_id, agent_id, digest FROM suspect_values
        WHERE bucket = $1 AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
        ORDER BY tenant_id, agent_id, digest LIMIT $3
    ) AS s
"""
# The same, and $4: how long a transcript without a revision is kept.
SUSPECT_TRANSCRIPTS = """
    SELECT transcript_id FROM suspect_transcripts
    WHERE bucket = $1 AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot) AND since <= now() - $4::interval
    ORDER BY transcript_id LIMIT $3
"""
COLLECT_VALUES = "SELECT collect_values_v1($1, $2::text::pg_snapshot, $3, $4, $5, $6)"
COLLECT_TRANSCRIPT = "SELECT * FROM collect_transcript_v1($1, $2::text::pg_snapshot, $3, $4, $5)"
# $1 bucket, $2 what was committed when the search began, $3 transcripts.
ACQUIT_TRANSCRIPTS = """
    DELETE FROM suspect_transcripts
    WHERE bucket = $1 AND transcript_id = ANY ($3) AND pg_visible_in_snapshot(xid, $2::text::pg_snapshot)
"""
# $1 bucket from which on to look. Spans agents, as the walk does.
NEXT_BUCKET = """
    SELECT least(
        (SELECT bucket FROM transcripts WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
        (SELECT bucket FROM transcript_segments WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
        (SELECT bucket FROM state_values WHERE bucket >= $1 ORDER BY bucket LIMIT 1)
    )
"""
# $1 the next bucket, or NULL: the round is over. $2 time between the beginnings of two rounds.
WALKED = """
    UPDATE collection_state SET walk_bucket = coalesce($1, 0),
        next_walk = CASE WHEN $1 IS NULL THEN now() + $2::interval ELSE next_walk END
    WHERE id = 0
"""


class Collector:
    """The chore that removes what nothing needs. A purge tells it where to look; a daily walk finds all the rest.

    Why nothing that is needed is ever removed:

    A value or transcript is removed only if a search through all revisions of its bucket, which began when it was a
    suspect already, met none that needs it. A revision that the search missed was saved after the search had passed
    its place. There are only these ways in which such a revision can need what is suspected:

    - It names a value or uses a transcript that an older revision of its session does, or a beginning of that one.
      Whoever saves holds the session's lock and found the session as it was planned for, so that older revision
      was there. Either the search has met it, or the same holds for it in turn, down to one of the ways below.
    - It brings the value with it. Then the function that stores it inserts into state_values, and the trigger there
      takes the value off the suspects, in the same transaction: the search comes to nothing. The trigger holds a
      lock (shared; 24150, bucket) until the save has committed, and the collector takes that lock both when the
      search begins and when it ends. So a save that saw the value before it was a suspect has committed by the
      beginning, and is met; one that comes later sees the suspect; and one that takes the value off is either seen
      at the end, or comes after the end, finds no such value, and stores it again.
    - It brings the transcript with it: then nobody could suspect that.
    - It ends an upload whose transcript was written before. Such a transcript is searched for only when its deadline
      has passed, and the upload that ends before that holds the same lock until it has committed, so the search meets
      its revision. It also refuses to begin with a transcript that is a suspect; see uploads.CLAIM. Its values are
      inserted by the transaction that inserts the revision.

    Whoever adds another way of naming what is stored (a session made from another's, say) must take the lock and the
    names off the suspects as the trigger does.

    Nothing is lost when a process dies between any two steps: what was not removed is a suspect still. Two processes
    would do no harm, only the same work twice; so a process leaves it to another that worked within HOLD.
    """

    name = "collect"

    def __init__(
        self,
        database: Database,
        observer: Observer | None = None,
        *,
        keep: timedelta = KEEP,
        walk_every: timedelta = WALK_EVERY,
    ) -> None:
        """Do nothing yet."""
        self._database = database
        self._keep = keep
        self._observer = observer or SilentObserver()
        self._walk_every = walk_every
        self._id = uuid4()
        self._held_until = 0.0
        self._last_bucket = -1
        self._under_way: AsyncIterator[None] | None = None

    async def step(self) -> bool:
        """See Chore."""
        (work,) = await self._database.fetch(LOOK, self._keep, self._last_bucket, GRACE)
        buckets = [b for b in (work["bucket_of_values"], work["bucket_of_transcripts"]) if b is not None]
        purged = work["purged_session"] is not None
        broken = work["uploads_broken"]
        if not (purged or broken or self._under_way or buckets or work["walk_due"]):
            return False
        if not await self._is_ours():
            self._under_way = None
            return False
        began = time.perf_counter()
        if purged:
            await self._drain(work["purged_bucket"], work["purged_session"])
        elif broken:
            await self._database.fetch(SUSPECT_UPLOADS, GRACE, PIECE_ROWS)
        else:
            if self._under_way is None:
                self._under_way = self._search(self._next(buckets)) if buckets else self._walk(work["walk_bucket"])
            await self._go_on(self._under_way)
        self._observer.collecting(time.perf_counter() - began)
        return True

    async def _is_ours(self) -> bool:
        """Whether nobody else is at work; then nobody else will be for a while."""
        now = time.monotonic()
        if now < self._held_until - HOLD.total_seconds() / 2:
            return True
        if not await self._database.fetch(TAKE, self._id, HOLD):
            return False
        self._held_until = now + HOLD.total_seconds()
        return True

    def _next(self, buckets: Sequence[int]) -> int:
        """The next bucket with suspects, in turns."""
        self._last_bucket = min([b for b in buckets if b > self._last_bucket] or buckets)
        return self._last_bucket

    async def _go_on(self, steps: AsyncIterator[None]) -> None:
        self._under_way = None  # an error ends it, too
        with suppress(StopAsyncIteration):
            await anext(steps)
            self._under_way = steps

    async def _drain(self, bucket: int, session_id: int) -> None:
        removed = await self._call(DRAIN, bucket, session_id, PIECE_ROWS, PIECE_BYTES)
        self._observer.collected("revisions", removed or 0)

    async def _search(self, bucket: int) -> AsyncIterator[None]:
        """Who needs the bucket's suspects? Remove those that nobody does."""
        seen = await self._call(BEGIN, bucket)
        if seen is None:
            return
        values = await self._database.fetch(SUSPECT_VALUES, bucket, seen, MOST_SUSPECTS)
        ids = await self._database.fetch(SUSPECT_TRANSCRIPTS, bucket, seen, MOST_SUSPECTS, self._keep)
        suspects = Suspects({row["transcript_id"] for row in ids}, {ValueKey(*row) for row in values})
        suspected = Suspects({*suspects.transcripts}, {*suspects.values})
        yield
        async for _ in acquit(self._database.fetch, bucket, suspects):
            yield
        for piece in pieces(suspected.values, PIECE_VALUES):
            needed = [value not in suspects.values for value in piece]
            removed = await self._call(COLLECT_VALUES, bucket, seen, *columns(piece), needed)
            if removed is None:
                return  # they stay suspects
            self._observer.collected("state_values", removed)
            yield
        for some in pieces(suspected.transcripts - suspects.transcripts, PIECE_ROWS):
            await self._database.fetch(ACQUIT_TRANSCRIPTS, bucket, seen, some)
            yield
        # The younger first: what began with another is gone before that one is.
        for transcript_id in sorted(suspects.transcripts, reverse=True):
            more = True
            while more:
                more = await self._remove_transcript(bucket, seen, transcript_id)
                yield

    async def _remove_transcript(self, bucket: int, seen: str, transcript_id: int) -> bool:
        """Remove a piece of it; True: there is more."""
        (row,) = await self._database.fetch(COLLECT_TRANSCRIPT, bucket, seen, transcript_id, PIECE_ROWS, PIECE_BYTES)
        self._observer.collected("transcript_segments", row["segments"])
        self._observer.collected("transcripts", row["transcripts"])
        return bool(row["more"])

    async def _walk(self, bucket: int) -> AsyncIterator[None]:
        """Suspect what no revision needs, of one bucket of the round; a search for the suspects follows."""
        found = await self._call(NEXT_BUCKET, bucket)
        if found is None:
            await self._database.fetch(WALKED, None, self._walk_every)  # the round is over
            return
        async for _ in walk(self._database.fetch, found):
            yield
        await self._database.fetch(WALKED, found + 1, self._walk_every)

    async def _call(self, statement: str, *args: Any) -> Any:
        """What a function returns."""
        (row,) = await self._database.fetch(statement, *args)
        return row[0]
