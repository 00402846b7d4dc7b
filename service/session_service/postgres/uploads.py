"""Uploads: segments are written as they come, each by a transaction of its own; the last one makes the revision.

They go into a transcript that no revision uses until then, so no lock is held and nobody sees them. No connection is
held while the caller is waited for.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple

import asyncpg

from session_service.postgres import saving
from session_service.postgres.collector import KEEP
from session_service.postgres.heads import Head, StateParts, read_head
from session_service.postgres.operations import SaveStatus, SegmentRow, ValueRow, execute
from session_service.postgres.pool import Connection
from session_service.postgres.saves import Saves
from session_service.postgres.saving import Planned, Prepared
from session_service.postgres.transcripts import Link, Transcripts
from session_service.postgres.transfer_work import TransferWork
from session_service.sessions import digests, placement
from session_service.sessions.errors import Contention
from session_service.sessions.model import Content, Save, Saved, SessionKey
from session_service.sessions.transcript import MAX_DEPTH, Placed, Tail
from session_service.sessions.uploads import Arriving, Mark

MARKS_AT_A_TIME = 1000
"""Places of the stored transcript that are read at a time; each takes about 200 bytes."""

# $1 bucket, $2 tenant, $3 parent or NULL, $4 $5 $6 messages shared with it, their digest and bytes, $7 depth, $8
# seconds. A repetition, when a connection breaks, leaves one that nobody uses.
BEGIN = """
    INSERT INTO transcripts (
        transcript_id, tenant_id, parent_transcript_id, parent_message_count, parent_digest, parent_bytes, bucket,
        depth, upload_deadline
    )
    VALUES (nextval('transcript_ids'), $2, $3, $4, $5, $6, $1, $7, clock_timestamp() + make_interval(secs => $8))
    RETURNING transcript_id
"""

# $1 bucket, $2 tenant, $3 transcript, $4 … the segment. The lock keeps a collector from missing a segment that
# comes while it removes the transcript. ON CONFLICT, since the statement is repeated when a connection breaks.
WRITE = """
    WITH upload AS MATERIALIZED (
        SELECT t.transcript_id FROM transcripts AS t
        WHERE t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = $3 AND t.upload_deadline > clock_timestamp()
        FOR KEY SHARE
    ),
    written AS (
        INSERT INTO transcript_segments (
            bucket, tenant_id, transcript_id, first_message, message_count, end_bytes, raw_size, codec, payload, digest,
            checksum
        )
        SELECT $1, $2, transcript_id, $4, $5, $6, $7, $8, $9, $10, $11 FROM upload
        ON CONFLICT DO NOTHING
    )
    SELECT count(*) FROM upload
"""

# $1 bucket: until the transaction ends, no search begins for who needs what is suspected there; see Collector.
NAMING = "SELECT pg_advisory_xact_lock_shared(24150, $1)"

# Suspects that a search may be for. Those that a walk has seen are not, for so long: what was being uploaded then is
# among them, and is needed by now.
_SEARCHED = (
    "SELECT FROM suspect_transcripts AS s WHERE s.bucket = $1 AND s.transcript_id = {}.transcript_id"
    f" AND s.since <= clock_timestamp() - interval '{KEEP.total_seconds():.0f} seconds'"
)

# $1 bucket, $2 tenant, $3 transcript: makes an upload's transcript one like any other, if it is still there with
# its parent, and that is not being searched for: it may be being removed. After NAMING.
CLAIM = f"""
    WITH parent AS MATERIALIZED (
        SELECT p.transcript_id FROM transcripts AS t
        JOIN transcripts AS p ON p.bucket = $1 AND p.tenant_id = $2 AND p.transcript_id = t.parent_transcript_id
        WHERE t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = $3
            AND NOT EXISTS ({_SEARCHED.format("p")})
        FOR KEY SHARE OF p
    )
    UPDATE transcripts AS t SET upload_deadline = NULL
    WHERE t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = $3 AND t.upload_deadline > clock_timestamp()
        AND (t.parent_transcript_id IS NULL OR EXISTS (SELECT FROM parent))
    RETURNING t.transcript_id
"""  # noqa: S608  constants

# $1 bucket, $2 tenant, $3 transcript that a new one is to begin with: the same. After NAMING.
HOLD = f"""
    SELECT t.transcript_id FROM transcripts AS t
    WHERE t.bucket = $1 AND t.tenant_id = $2 AND t.transcript_id = $3
        AND NOT EXISTS ({_SEARCHED.format("t")})
    FOR KEY SHARE OF t
"""  # noqa: S608  constants

# $1 bucket, $2 tenant, $3 transcript, segments from $4 on that begin before $5, $6 how many
MARKS = """
    SELECT first_message, message_count, end_bytes, digest FROM transcript_segments
    WHERE bucket = $1 AND tenant_id = $2 AND transcript_id = $3 AND first_message >= $4 AND first_message < $5
    ORDER BY first_message LIMIT $6
"""


class Writing(NamedTuple):
    """What all uploads of a store share."""

    work: TransferWork
    saves: Saves
    seconds: float
    """How long an upload may take."""


class PostgresUpload:
    """See Upload."""

    def __init__(self, writing: Writing, save: Save, arriving: Arriving, stored: "_Stored | None") -> None:
        self._writing = writing
        self._scope = _scope(save)
        self._arriving = arriving
        self._tail = stored.tail if stored else None
        self._marks = stored.marks() if stored else None
        self._transcript_id: int | None = None
        self._written_messages = 0
        self._written_bytes = 0

    @classmethod
    async def begin(cls, writing: Writing, save: Save) -> "PostgresUpload":
        """Looks what is stored of the session."""
        stored = None if save.self_contained or not save.session_name else await _stored(writing.work, save)
        arriving = Arriving(save.tenant.digest_secret, compared=stored is not None)
        return cls(writing, save, arriving, stored)

    async def add(self, messages: Sequence[bytes]) -> None:
        """See Upload."""
        while self._marks and self._arriving.expects(len(messages)):
            page = await anext(self._marks, None)
            self._arriving.expect(page or (), last=page is None)
        for row in await self._writing.work.compute(self._take_in, messages):
            await self._write(row)

    async def finish(self, save: Save, now: datetime) -> Saved:
        """See Upload."""
        content = save.content
        if not isinstance(content, Content):
            raise TypeError("only a snapshot can be uploaded")
        compute = self._writing.work.compute
        rest = await compute(lambda: [*map(saving.segment_of, self._arriving.rest())])
        inline, shared, values = await compute(saving.sort_values, save.tenant.digest_secret, content.values)
        prepared = saving.prepare(save, now, self._arriving.end)
        parts = StateParts(content.kept, inline, shared)
        conclude = partial(self._conclude, rest, parts, values)
        return await self._writing.saves.save_uploaded(prepared, conclude)

    def _take_in(self, messages: Sequence[bytes]) -> list[SegmentRow]:
        # One by one: what is not compressed yet is kept once only.
        return [*map(saving.segment_of, self._arriving.add(messages))]

    async def _write(self, row: SegmentRow) -> None:
        if self._transcript_id is None:
            self._transcript_id = await self._begin_transcript()
        (found,) = await self._writing.work.fetch(WRITE, *self._scope, self._transcript_id, *row)
        if not found["count"]:
            raise _too_late()
        self._written_messages += row.message_count
        self._written_bytes += len(row.payload)

    async def _begin_transcript(self) -> int:
        parent = _parent(self._arriving)
        seconds = self._writing.seconds
        (made,) = await self._writing.work.fetch(BEGIN, *self._scope, *parent, seconds)
        return int(made["transcript_id"])

    async def _conclude(
        self,
        rest: Sequence[SegmentRow],
        parts: StateParts,
        values: Sequence[ValueRow],
        connection: Connection,
        prepared: Prepared,
        head: Head | None,
    ) -> tuple[Planned, asyncpg.Record]:
        """Make the revision, while the session's lock is held."""
        placed, kind = self._placed(head)
        await connection.execute(NAMING, self._scope[0])
        if placed.parent_transcript_id is not None and not await connection.fetch(
            HOLD, *self._scope, placed.parent_transcript_id
        ):
            raise _too_late()
        planned = saving.put_together(prepared, head, placed, self._arriving.end, parts, values, rest)
        (row,) = await execute(connection, [planned.operation], wait=True)
        is_begun = self._transcript_id is not None and row["status"] == SaveStatus.SAVED
        if is_begun and not await connection.fetch(CLAIM, *self._scope, self._transcript_id):
            raise _too_late()  # and nothing of this transaction stays
        stored_bytes = planned.operation.stored_bytes + self._written_bytes
        return planned._replace(
            operation=planned.operation._replace(stored_bytes=stored_bytes),
            placement=kind,
            new_messages=self._written_messages + sum(row.message_count for row in rest),
        ), row

    def _placed(self, head: Head | None) -> tuple[Placed, str]:
        """Where the messages are, and how that is called; see Placed.kind. The segments are not in it."""
        count, common = self._arriving.count, self._arriving.common
        if self._transcript_id is not None:
            # Its parent was told when it was begun, and is looked at when it is claimed.
            return _in(self._transcript_id, count), "branch" if common else "whole"
        tail = self._tail if head is not None and head.tail == self._tail else None
        if common and tail:
            is_new = count > common.end
            if is_new and common.end == tail.message_count == tail.transcript_length:
                return _in(tail.transcript_id, count), "append"
            if not is_new and common.owner.transcript_id == tail.transcript_id:
                return _in(tail.transcript_id, tail.transcript_length), "prefix"
        return Placed(None, *_parent(self._arriving), count, ()), "branch" if common else "whole"


class _Stored:
    """What an upload is compared with: the transcript of its session's head."""

    def __init__(self, work: TransferWork, scope: tuple[int, int], tail: Tail, chain: Sequence[Link]) -> None:
        self.tail = tail
        self._work = work
        self._scope = scope
        self._chain = chain

    async def marks(self) -> AsyncIterator[list[Mark]]:
        """Marks in ascending order, page by page."""
        high = self.tail.transcript_length
        links: list[tuple[Link, int]] = []
        for link in self._chain:
            high = min(high, link.high)
            links.insert(0, (link, high))
        before: Link | None = None
        for link, end in links:
            if before:
                yield [Mark(link.low, link.low_bytes, link.low_digest, before.owner)]
            async for page in self._marks_of(link, end):
                yield page
            before = link

    async def _marks_of(self, link: Link, high: int) -> AsyncIterator[list[Mark]]:
        first = link.low
        while first < high:
            arguments = (*self._scope, link.transcript_id, first, high, MARKS_AT_A_TIME)
            rows = await self._work.fetch(MARKS, *arguments)
            if not rows:
                return
            ends = [(row["first_message"] + row["message_count"], row) for row in rows]
            yield [Mark(end, row["end_bytes"], row["digest"], link.owner) for end, row in ends if end <= high]
            first = ends[-1][0]


async def _stored(work: TransferWork, save: Save) -> _Stored | None:
    head = await read_head(work.fetch, SessionKey(save.tenant, save.agent_id, save.session_name))
    if head is None:
        return None
    bucket, tenant_id = _scope(save)
    tail = head.tail
    transcripts = Transcripts(work.fetch, bucket, tenant_id, save.tenant.digest_secret)
    chain = await transcripts.chain(tail.transcript_id, tail.transcript_length)
    # What is compared is not kept, so it cannot be written anew, later, because the branch would be too deep.
    if not chain or chain[0].depth >= MAX_DEPTH:
        return None
    return _Stored(work, (bucket, tenant_id), tail, chain)


def _parent(arriving: Arriving) -> tuple[int | None, int, bytes, int, int]:
    """Of a new transcript: parent, messages shared with it, their digest and bytes, depth."""
    common = arriving.common
    if common is None:
        return None, 0, digests.start(arriving.secret), 0, 0
    return common.owner.transcript_id, common.end, common.digest, common.size, common.owner.depth + 1


def _in(transcript_id: int, length: int) -> Placed:
    """In a transcript that is there."""
    return Placed(transcript_id, None, 0, b"", 0, 0, length, ())


def _scope(save: Save) -> tuple[int, int]:
    return placement.bucket_of(save.tenant, save.agent_id), save.tenant.tenant_id


def _too_late() -> Contention:
    return Contention(
        "what the upload was building on, or the upload itself, has been removed meanwhile; send it again"
    )
