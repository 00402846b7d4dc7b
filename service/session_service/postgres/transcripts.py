"""Decides where a snapshot's messages go, reading as little of what is stored as possible.

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
from session_service.sessions import fragments, transcript
from session_service.sessions.transcript import Owner, Placed, Tail

FIRST_STEP = 4
"""Segments looked at in the first step back; each further step is twice as long."""

# $1 bucket, $2 tenant, $3 transcript, $4 its length: the transcript and its ancestors, youngest first.
CHAIN = """
    WITH RECURSIVE walk AS (
        SELECT t.transcript_id, t.parent_transcript_id, t.parent_message_count, t.parent_digest, t.depth,
            $4::bigint AS high
        FROM transcripts AS t WHERE t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = $3
        UNION ALL
        SELECT t.transcript_id, t.parent_transcript_id, t.parent_message_count, t.parent_digest, t.depth,
            w.parent_message_count
        FROM walk AS w
        JOIN transcripts AS t ON t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = w.parent_transcript_id
    )
    SELECT transcript_id, parent_message_count, parent_digest, depth, high FROM walk ORDER BY depth DESC
"""

# $1 bucket, $2 tenant, $3 transcript, $4 segments that begin before this message, $5 how many, newest first.
MARKS = """
    SELECT first_message, message_count, digest FROM transcript_segments
    WHERE bucket = $1 AND tenant_id = $2 AND transcript_id = $3 AND first_message < $4
    ORDER BY first_message DESC LIMIT $5
"""

# $1 bucket, $2 tenant, $3 transcript, $4 first message.
SEGMENT = """
    SELECT first_message, message_count, raw_size, codec, digest, payload, checksum FROM transcript_segments
    WHERE bucket = $1 AND tenant_id = $2 AND transcript_id = $3 AND first_message = $4
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot's messages with their running digests."""

    messages: Sequence[bytes]
    digests: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class _Link:
    """One transcript of the head's chain; it owns the messages from `low` to `high`."""

    transcript_id: int
    depth: int
    low: int
    low_digest: bytes
    """Running digest over the messages before `low`."""
    high: int


class Placer:
    """Places snapshots of one agent of one tenant."""

    def __init__(self, fetch: Fetch, bucket: int, tenant_id: int) -> None:
        self._fetch = fetch
        self._scope = (bucket, tenant_id)

    async def place(self, snapshot: Snapshot, tail: Tail) -> Placed:
        """Where the snapshot's messages go, given the head they follow."""
        count = len(snapshot.messages)
        if transcript.extends(tail, snapshot.digests):
            if tail.message_count == tail.transcript_length:
                return transcript.append(tail, snapshot.messages, snapshot.digests)
            if count == tail.message_count:
                return transcript.prefix(tail)
        owner, common = await self._common(snapshot, tail)
        if common == count and owner.transcript_id == tail.transcript_id:
            return transcript.prefix(tail)
        return transcript.branch(owner, common, snapshot.messages, snapshot.digests)

    async def _common(self, snapshot: Snapshot, tail: Tail) -> tuple[Owner, int]:
        """The longest common beginning with the head's whole transcript, and the transcript that owns its end."""
        chain = await self._chain(tail)
        for link in chain:
            if link.low < len(snapshot.digests) and snapshot.digests[link.low] == link.low_digest:
                common = await self._common_in(link, snapshot)
                if common > link.low:
                    return Owner(link.transcript_id, link.depth), common
                # Nothing of this one: its parent owns the end, which is known already.
                owner = next((older for older in chain if older.low < common), link)
                return Owner(owner.transcript_id, owner.depth), common
        return Owner(tail.transcript_id, transcript.MAX_DEPTH), 0

    async def _chain(self, tail: Tail) -> Sequence[_Link]:
        rows = await self._fetch(CHAIN, *self._scope, tail.transcript_id, tail.transcript_length)
        return [
            _Link(r["transcript_id"], r["depth"], r["parent_message_count"], r["parent_digest"], r["high"])
            for r in rows
        ]

    async def _common_in(self, link: _Link, snapshot: Snapshot) -> int:
        """How many messages are common, when all before link.low are."""
        high = bound = min(link.high, len(snapshot.messages))
        step = FIRST_STEP
        parting: asyncpg.Record | None = None
        while marks := await self._fetch(MARKS, *self._scope, link.transcript_id, bound, step):
            for mark in marks:
                end = mark["first_message"] + mark["message_count"]
                if end <= high and snapshot.digests[end] == mark["digest"]:
                    return await self._compare(link, parting, snapshot, end)
                parting = mark
            bound, step = marks[-1]["first_message"], step * 2
        return await self._compare(link, parting, snapshot, link.low)

    async def _compare(self, link: _Link, parting: asyncpg.Record | None, snapshot: Snapshot, common: int) -> int:
        """Adds to `common` the equal messages at the beginning of the segment where the histories part."""
        if parting is None or parting["first_message"] != common:
            return common
        rows = await self._fetch(SEGMENT, *self._scope, link.transcript_id, common)
        high = min(link.high, len(snapshot.messages))
        for stored in _messages(rows):
            if common >= high or snapshot.messages[common] != stored:
                break
            common += 1
        return common


def _messages(rows: Sequence[asyncpg.Record]) -> list[bytes]:
    """A segment's messages; none if it is damaged: then nothing is shared with it."""
    try:
        first, count, raw_size, codec, digest, payload, checksum = rows[0]
        if checksums.of_segment(first, count, raw_size, codec, digest, payload) != checksum:
            return []
        return list(fragments.split(compression.unpack(codec, raw_size, payload)))
    except (IndexError, compression.Damaged, fragments.MalformedFragment):
        return []
