"""Reads a state piece by piece. Each piece is a statement of its own, so a slow reader holds nothing.

Between two of them others may pack segments or remove the session. A piece is told by the number of its first message
and by transcripts, whose ids are never used again and whose messages never change: so what comes can be missing, but
not another's. Running digests are followed from segment to segment all the same.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import NamedTuple

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums, rows, states, stored_state
from session_service.postgres.states import Fetch
from session_service.postgres.transcripts import Link, Transcripts
from session_service.postgres.transfer_work import TransferWork
from session_service.sessions import digests, fragments, placement
from session_service.sessions.errors import RevisionNotFound, SessionNotFound, SessionServiceError
from session_service.sessions.model import Revision, Session, SessionKey, Target

PART_BYTES = 1 << 20
"""Of one part, before compression; a larger value or message is a part by itself. No part is above a segment's size,
so that with its framing it fits a stock client's 4 MiB if what was saved did."""

# The segment of transcript $3 that holds message $4, and those after it that begin before $5, up to $6 bytes.
# The keys are found first: a payload is read only for those that are given back.
PAGE = """
    WITH RECURSIVE page AS (
        (
            SELECT b.first_message, b.raw_size::bigint AS total FROM transcript_segments AS b
            WHERE b.bucket = $1 AND b.tenant_id = $2 AND b.transcript_id = $3 AND b.first_message <= $4
            ORDER BY b.first_message DESC LIMIT 1
        )
        UNION ALL
        SELECT n.first_message, p.total + n.raw_size
        FROM page AS p
        CROSS JOIN LATERAL (
            SELECT x.first_message, x.raw_size FROM transcript_segments AS x
            WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.transcript_id = $3
                AND x.first_message > p.first_message AND x.first_message < $5
            ORDER BY x.first_message LIMIT 1
        ) AS n
        WHERE p.total + n.raw_size <= $6
    )
    SELECT g.first_message, g.message_count, g.end_bytes, g.raw_size, g.codec, g.digest, g.payload, g.checksum
    FROM page AS p
    CROSS JOIN LATERAL (
        SELECT x.* FROM transcript_segments AS x
        WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.transcript_id = $3 AND x.first_message = p.first_message
        LIMIT 1
    ) AS g
"""

# $1 bucket, $2 tenant, $3 agent, $4 digests
VALUES = """
    SELECT d.place, d.digest, v.raw_size, v.codec, v.payload, v.checksum
    FROM unnest($4::bytea[]) WITH ORDINALITY AS d (digest, place)
    LEFT JOIN LATERAL (
        SELECT x.* FROM state_values AS x
        WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.agent_id = $3 AND x.digest = d.digest
        LIMIT 1
    ) AS v ON true
"""

# $1 bucket, $2 tenant, $3 agent, $4 session, $5 session_id, $6 revision
STILL_THERE = """
    SELECT s.session_id, r.revision FROM sessions AS s
    LEFT JOIN LATERAL (
        SELECT x.revision FROM revisions AS x
        WHERE x.bucket = s.bucket AND x.session_id = s.session_id AND x.revision = $6 LIMIT 1
    ) AS r ON true
    WHERE s.bucket = $1 AND s.tenant_id = $2 AND s.agent_id = $3 AND s.session_name = $4 AND s.session_id = $5
"""


class Opened(NamedTuple):
    """A revision whose state is about to be read."""

    key: SessionKey
    session: Session
    revision: Revision
    state: bytes
    """See Download."""
    values: Sequence[tuple[bytes, int]]
    """Digests and sizes of its big values."""
    transcript_id: int
    digest: bytes
    """Running digest over its messages."""
    low: int
    """The first message that is wanted."""


async def open_state(fetch: Fetch, key: SessionKey, target: Target, message_limit: int) -> Opened:
    """All that is known of a revision's state before its messages and big values.

    Raises:
        SessionNotFound, RevisionNotFound: there is none.
        CorruptData: the revision's row is damaged.
    """
    row = await states.find(fetch, key, target)
    revision = rows.revision(row, row["uid"])
    try:
        state = stored_state.base(row)
        values = stored_state.values_of(row)
    except (stored_state.Damaged, compression.Damaged, ValueError) as error:
        raise states.damaged(key, revision.revision, error) from error
    low = max(revision.message_count - message_limit, 0) if message_limit else 0
    transcript_id, digest = row["r_transcript_id"], row["r_digest"]
    return Opened(key, rows.session(row, key.agent_id), revision, state, values, transcript_id, digest, low)


async def parts(work: TransferWork, opened: Opened) -> AsyncGenerator[bytes, None]:
    """See Download.parts."""
    reader = _Reader(work, opened)
    try:
        async for part in reader.values():
            yield part
        async for part in reader.messages():
            yield part
    except stored_state.Damaged as error:
        raise await reader.gone_or_damaged(error) from error


class _Reader:
    """Reads the parts of an opened state."""

    def __init__(self, work: TransferWork, opened: Opened) -> None:
        self._work = work
        self._opened = opened
        key = opened.key
        self._scope = (placement.bucket_of(key.tenant, key.agent_id), key.tenant.tenant_id)

    async def values(self) -> AsyncIterator[bytes]:
        """The big values."""
        wanted: list[bytes] = []
        size = 0
        for digest, value_size in self._opened.values:
            if wanted and size + value_size > PART_BYTES:
                yield await self._read_values(wanted)
                wanted, size = [], 0
            wanted.append(digest)
            size += value_size
        if wanted:
            yield await self._read_values(wanted)

    async def _read_values(self, wanted: Sequence[bytes]) -> bytes:
        found = await self._work.fetch(VALUES, *self._scope, self._opened.key.agent_id, wanted)
        return await self._work.compute(_join_values, sorted(found, key=lambda row: int(row["place"])))

    async def messages(self) -> AsyncIterator[bytes]:
        """The messages, from `low` on."""
        opened = self._opened
        count, position = opened.revision.message_count, opened.low
        if position >= count:
            return
        secret = opened.key.tenant.digest_secret
        transcripts = Transcripts(self._work.fetch, *self._scope, secret)
        chain = await transcripts.chain(opened.transcript_id, count)
        digest = digests.start(secret) if position == 0 else None
        for link, high in _oldest_first(chain, count):
            while link.low <= position < high:
                page = await self._work.fetch(PAGE, *self._scope, link.transcript_id, position, high, PART_BYTES)
                part, position, digest = await self._work.compute(_join, page, position, high, digest, secret)
                yield part
        if position < count:
            raise stored_state.Damaged(f"messages from {position} are missing")
        if digest not in (None, opened.digest):
            raise stored_state.Damaged("the messages are another revision's")

    async def gone_or_damaged(self, error: stored_state.Damaged) -> SessionServiceError:
        """Why something is missing: it was removed while it was read, or it is damaged."""
        key, session, revision = self._opened[:3]
        arguments = (*self._scope, key.agent_id, key.session_name, session.session_id, revision.revision)
        found = await self._work.fetch(STILL_THERE, *arguments)
        told = {"agent_id": key.agent_id, "session_name": key.session_name}
        if not found:
            return SessionNotFound(f"{key} was purged while it was read", told)
        if found[0]["revision"] is None:
            return RevisionNotFound(f"{key} revision {revision.revision} was removed while it was read", told)
        return states.damaged(key, revision.revision, error)


def _oldest_first(chain: Sequence[Link], count: int) -> list[tuple[Link, int]]:
    """The links of a chain, each with the message before which it ends."""
    high = count
    links = []
    for link in chain:
        high = min(high, link.high)
        links.append((link, high))
        high = min(high, link.low)
    return links[::-1]


def _join_values(found: Sequence[asyncpg.Record]) -> bytes:
    parts = []
    for row in found:
        if row["payload"] is None:
            raise stored_state.Damaged("a value is missing")
        _, digest, raw_size, codec, payload, checksum = row
        if checksums.of_value(raw_size, codec, digest, payload) != checksum:
            raise stored_state.Damaged("checksum of a value")
        parts.append(_unpacked(codec, raw_size, payload))
    return b"".join(parts)


def _join(
    page: Sequence[asyncpg.Record], position: int, high: int, digest: bytes | None, secret: bytes
) -> tuple[bytes, int, bytes | None]:
    """The messages of a page from `position` on, the position after them, and the running digest there.

    Args:
        page: segments.
        position: the first message wanted.
        high: the message before which to stop.
        digest: the running digest before `position`; None: not known.
        secret: the tenant's.
    """
    runs: list[bytes] = []
    for first, count, end_bytes, raw_size, codec, end_digest, payload, checksum in sorted(page, key=lambda row: row[0]):
        if checksums.of_segment(first, count, end_bytes, raw_size, codec, end_digest, payload) != checksum:
            raise stored_state.Damaged(f"checksum of the messages from {first}")
        end = min(first + count, high)
        if not first <= position < end:
            break
        try:
            messages = list(fragments.split(_unpacked(codec, raw_size, payload)))
        except fragments.MalformedFragment as error:
            raise stored_state.Damaged(str(error)) from error
        wanted = messages[position - first : end - first]
        if digest is not None:
            digest = digests.running(secret, wanted, digest)[-1]
        if end == first + count:
            if digest not in (None, end_digest):
                raise stored_state.Damaged(f"digest of the messages up to {end}")
            digest = end_digest
        runs.append(fragments.join(wanted))
        position = end
    if not runs:
        raise stored_state.Damaged(f"messages from {position} are missing")
    return b"".join(runs), position, digest


def _unpacked(codec: int, raw_size: int, payload: bytes) -> bytes:
    try:
        return compression.unpack(codec, raw_size, payload)
    except compression.Damaged as error:
        raise stored_state.Damaged(str(error)) from error
