"""Decides where messages go, reading as little of what is stored as possible.

A snapshot that extends its head reads nothing at all. One that differs is
followed back over the segments' running digests (no payload), and only in the
one segment where the histories part are messages compared. All of this is a
proposal: the save function accepts it only if the head is still the one it was
made for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.states import Fetch
from session_service.sessions import digests, fragments, transcript
from session_service.sessions.errors import CorruptData
from session_service.sessions.transcript import Owner, Placed, Run, Tail

FIRST_STEP = 4
"""Segments looked at in the first step back; each further step is twice as long."""

# $1 bucket, $2 tenant, $3 transcript, $4 its length: the transcript and its ancestors, youngest first.
CHAIN = """
    WITH RECURSIVE walk AS (
        SELECT t.*, $4::bigint AS high
        FROM transcripts AS t WHERE t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = $3
        UNION ALL
        SELECT t.*, w.parent_message_count
        FROM walk AS w
        JOIN transcripts AS t ON t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = w.parent_transcript_id
    )
    SELECT transcript_id, parent_message_count, parent_digest, parent_bytes, depth, high FROM walk ORDER BY depth DESC
"""

# $1 bucket, $2 tenant, $3 transcript, $4 segments that begin before this message, $5 how many, newest first.
MARKS = """
    SELECT first_message, message_count, end_bytes, digest FROM transcript_segments
    WHERE bucket = $1 AND tenant_id = $2 AND transcript_id = $3 AND first_message < $4
    ORDER BY first_message DESC LIMIT $5
"""

# $1 bucket, $2 tenant, $3 transcript, $4 a message: the segment that holds it, and where the one before that ended. In
# one statement: packing may replace both between two. $5: without the payload if the segment ends with so many.
SEGMENT = """
    SELECT g.first_message, g.message_count, g.end_bytes, g.raw_size, g.codec, g.digest,
        CASE WHEN g.first_message + g.message_count IS DISTINCT FROM $5 THEN g.payload END AS payload, g.checksum,
        before.ends AS start, before.digest AS start_digest, before.end_bytes AS start_bytes
    FROM (
        SELECT * FROM transcript_segments AS x
        WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.transcript_id = $3 AND x.first_message <= $4
        ORDER BY x.first_message DESC LIMIT 1
    ) AS g
    LEFT JOIN LATERAL (
        SELECT y.first_message + y.message_count AS ends, y.digest, y.end_bytes FROM transcript_segments AS y
        WHERE y.bucket = $1 AND y.tenant_id = $2 AND y.transcript_id = $3 AND y.first_message < g.first_message
        ORDER BY y.first_message DESC LIMIT 1
    ) AS before ON true
"""


@dataclass(frozen=True, slots=True)
class Link:
    """One transcript of a chain of ancestors; it owns the messages from `low` to `high`."""

    transcript_id: int
    depth: int
    low: int
    low_digest: bytes
    """Running digest over the messages before `low`."""
    low_bytes: int
    """Bytes of those messages, framed."""
    high: int

    @property
    def owner(self) -> Owner:
        """This transcript, as the parent of a branch."""
        return Owner(self.transcript_id, self.depth)


class Transcripts:
    """The transcripts of one agent of one tenant."""

    def __init__(self, fetch: Fetch, bucket: int, tenant_id: int, secret: bytes) -> None:
        self._fetch = fetch
        self._scope = (bucket, tenant_id)
        self._secret = secret

    async def place(self, run: Run, tail: Tail) -> Placed:
        """Where a snapshot's messages go, given the head they follow."""
        if transcript.extends(tail, run):
            if tail.message_count == tail.transcript_length:
                return transcript.append(tail, run)
            if run.end == tail.message_count:
                return transcript.prefix(tail)
        owner, common = await self._common(run, tail)
        if common == run.end and owner.transcript_id == tail.transcript_id:
            return transcript.prefix(tail)
        if common == 0 or transcript.too_deep(owner):
            return transcript.whole(run)
        return transcript.branch(owner, common, run)

    async def chain(self, transcript_id: int, length: int) -> Sequence[Link]:
        """A transcript up to its first `length` messages, and its ancestors; youngest first."""
        rows = await self._fetch(CHAIN, *self._scope, transcript_id, length)
        return [
            Link(
                row["transcript_id"],
                row["depth"],
                row["parent_message_count"],
                row["parent_digest"],
                row["parent_bytes"],
                row["high"],
            )
            for row in rows
        ]

    async def at(self, chain: Sequence[Link], count: int) -> tuple[bytes, int]:
        """Running digest and framed bytes of the first `count` messages of a chain's youngest transcript.

        Raises:
            CorruptData: the segment that holds the last of them is damaged or missing.
        """
        link = owner_of(chain, count)
        if link is None or count == link.low:
            return (link.low_digest, link.low_bytes) if link else (digests.start(self._secret), 0)
        rows = await self._fetch(SEGMENT, *self._scope, link.transcript_id, count - 1, count)
        if rows and rows[0]["payload"] is None:
            return rows[0]["digest"], rows[0]["end_bytes"]
        first = rows[0]["first_message"] if rows else link.low
        messages = _messages(rows)
        start = (link.low, link.low_digest, link.low_bytes)
        if rows and rows[0]["start"] is not None:
            start = (rows[0]["start"], rows[0]["start_digest"], rows[0]["start_bytes"])
        if len(messages) < count - first or start[0] != first:
            raise CorruptData(f"messages up to {count} are damaged or missing")
        run = Run.after(self._secret, *start, messages[: count - first])
        return run.digest(count), run.size(count)

    async def _common(self, run: Run, tail: Tail) -> tuple[Owner, int]:
        """The longest common beginning with the head's whole transcript, and the transcript that owns its end."""
        chain = await self.chain(tail.transcript_id, tail.transcript_length)
        for link in chain:
            if link.low <= run.end and run.digest(link.low) == link.low_digest:
                common = await self._common_in(link, run)
                # Nothing of this one: its parent owns the end, which is known already.
                return (owner_of(chain, common) or link).owner, common
        return Owner(tail.transcript_id, transcript.MAX_DEPTH), 0

    async def _common_in(self, link: Link, run: Run) -> int:
        """How many messages are common, when all before link.low are."""
        high = bound = min(link.high, run.end)
        step = FIRST_STEP
        parting = False
        while marks := await self._fetch(MARKS, *self._scope, link.transcript_id, bound, step):
            for mark in marks:
                end = mark["first_message"] + mark["message_count"]
                if end <= high and run.digest(end) == mark["digest"]:
                    return await self._compare(link, parting, run, end)
                parting = True
            bound, step = marks[-1]["first_message"], step * 2
        return await self._compare(link, parting, run, link.low)

    async def _compare(self, link: Link, parting: bool, run: Run, common: int) -> int:
        """Adds to `common` the equal messages at the beginning of the segment where the histories part.

        That segment may hold common messages, too: it may have been packed since it was looked at.
        """
        high = min(link.high, run.end)
        if not parting or common >= high:
            return common
        rows = await self._fetch(SEGMENT, *self._scope, link.transcript_id, common, None)
        first = rows[0]["first_message"] if rows else common
        for stored in _messages(rows)[common - first :]:
            if common >= high or run.messages[common - run.first] != stored:
                break
            common += 1
        return common


def _messages(rows: Sequence[asyncpg.Record]) -> list[bytes]:
    """The messages of a segment, if one was found; none if it is damaged: then nothing is shared with it."""
    try:
        first, count, end_bytes, raw_size, codec, digest, payload, checksum, *_ = rows[0]
        if checksums.of_segment(first, count, end_bytes, raw_size, codec, digest, payload) != checksum:
            return []
        return list(fragments.split(compression.unpack(codec, raw_size, payload)))
    except (IndexError, compression.Damaged, fragments.MalformedFragment):
        return []


def owner_of(chain: Sequence[Link], count: int) -> Link | None:
    """The transcript of a chain that owns the last of the first `count` messages; None: there is none."""
    return next((link for link in chain if link.low < count), None)
