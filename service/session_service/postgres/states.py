"""Reads a revision with its state: one statement, and so one snapshot of the database.

Packing or a purge beside it can therefore leave no hole. Everything read is
checked; damage is CorruptData for this revision.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums, rows
from session_service.postgres.checksums import RevisionFacts
from session_service.sessions import fragments, placement
from session_service.sessions.digests import DIGEST_SIZE
from session_service.sessions.errors import CorruptData, RevisionNotFound, SessionNotFound
from session_service.sessions.model import Restored, SessionKey, Target

Fetch = Callable[..., Awaitable[Sequence[asyncpg.Record]]]
"""Database.fetch, or the fetch of one connection."""

# The revision's number is found first, so that both ways go by index.
_FOUND = """
    FROM sessions AS s
    LEFT JOIN revisions AS r ON r.bucket = s.bucket AND r.session_id = s.session_id AND r.revision =
        CASE WHEN $6::text IS NULL THEN coalesce($5::bigint, s.head_revision) ELSE (
            SELECT k.revision FROM revisions AS k
            WHERE k.bucket = s.bucket AND k.session_id = s.session_id AND k.checkpoint_id = $6
        ) END
    WHERE s.bucket = $1 AND s.tenant_id = $2 AND s.agent_id = $3 AND s.session_name = $4
"""

# $1 bucket, $2 tenant, $3 agent, $4 session, $5 revision or NULL (the head), $6 checkpoint_id or NULL
DESCRIBE = f"SELECT {rows.SESSION_COLUMNS}, {rows.REVISION_COLUMNS} {_FOUND}"

# The same, and $7: return only so many messages (0: all). `walk` goes from the
# revision's transcript up to the oldest ancestor that is needed; each transcript
# gives the messages from its own start (or from `low`) up to where its child begins.
READ = f"""
    WITH RECURSIVE found AS (
        SELECT
            {rows.SESSION_COLUMNS}, {rows.REVISION_COLUMNS}, r.transcript_id AS r_transcript_id,
            r.state AS r_state, r.state_codec AS r_state_codec, r.state_raw_size AS r_state_raw_size,
            r.value_digests AS r_value_digests, r.value_names AS r_value_names, r.checksum AS r_checksum,
            CASE WHEN $7::bigint = 0 THEN 0 ELSE greatest(r.message_count - $7, 0) END AS low
        {_FOUND}
    ),
    walk AS (
        SELECT t.transcript_id, t.parent_transcript_id, t.parent_message_count, f.r_message_count AS high
        FROM found AS f
        JOIN transcripts AS t ON t.bucket = $1 AND t.transcript_id = f.r_transcript_id AND t.tenant_id = $2
        UNION ALL
        SELECT t.transcript_id, t.parent_transcript_id, t.parent_message_count,
            least(w.high, w.parent_message_count)
        FROM walk AS w
        JOIN transcripts AS t ON t.bucket = $1 AND t.transcript_id = w.parent_transcript_id AND t.tenant_id = $2
        WHERE w.parent_message_count > (SELECT low FROM found)
    )
    SELECT f.*, m.*, v.*
    FROM found AS f
    CROSS JOIN LATERAL (
        SELECT
            array_agg(g.first_message ORDER BY g.first_message) AS g_first_message,
            array_agg(g.message_count ORDER BY g.first_message) AS g_message_count,
            array_agg(g.end_bytes ORDER BY g.first_message) AS g_end_bytes,
            array_agg(w.high ORDER BY g.first_message) AS g_high,
            array_agg(g.raw_size ORDER BY g.first_message) AS g_raw_size,
            array_agg(g.codec ORDER BY g.first_message) AS g_codec,
            array_agg(g.digest ORDER BY g.first_message) AS g_digest,
            array_agg(g.payload ORDER BY g.first_message) AS g_payload,
            array_agg(g.checksum ORDER BY g.first_message) AS g_checksum
        FROM walk AS w
        JOIN transcript_segments AS g ON g.bucket = $1 AND g.tenant_id = $2 AND g.transcript_id = w.transcript_id
            AND g.first_message < w.high
            -- From the segment that holds message `low`.
            AND g.first_message >= coalesce((
                SELECT max(b.first_message) FROM transcript_segments AS b
                WHERE b.bucket = $1 AND b.transcript_id = w.transcript_id AND b.first_message <= f.low
            ), 0)
    ) AS m
    CROSS JOIN LATERAL (
        SELECT
            array_agg(d.digest ORDER BY d.place) AS v_digest,
            array_agg(x.raw_size ORDER BY d.place) AS v_raw_size,
            array_agg(x.codec ORDER BY d.place) AS v_codec,
            array_agg(x.payload ORDER BY d.place) AS v_payload,
            array_agg(x.checksum ORDER BY d.place) AS v_checksum
        FROM (
            SELECT n.place, substring(f.r_value_digests FROM n.place * {DIGEST_SIZE} + 1 FOR {DIGEST_SIZE}) AS digest
            FROM generate_series(0, length(f.r_value_digests) / {DIGEST_SIZE} - 1) AS n (place)
        ) AS d
        LEFT JOIN state_values AS x ON x.bucket = $1 AND x.tenant_id = $2 AND x.agent_id = $3 AND x.digest = d.digest
    ) AS v
"""  # noqa: S608  constants


async def describe(fetch: Fetch, key: SessionKey, target: Target) -> Restored:
    """A session and one of its revisions, without the state.

    Raises:
        SessionNotFound, RevisionNotFound: there is none.
    """
    row = _present(await fetch(DESCRIBE, *_arguments(key, target)), key, target)
    return Restored(rows.session(row, key.agent_id), rows.revision(row, row["uid"]), None)


async def read(fetch: Fetch, key: SessionKey, target: Target, message_limit: int) -> Restored:
    """A session and one of its revisions, with the state.

    Args:
        fetch: runs the statement.
        key: the session.
        target: the revision.
        message_limit: only the newest so many messages; 0: all.

    Raises:
        SessionNotFound, RevisionNotFound: there is none.
        CorruptData: something that the revision needs is damaged or missing.
    """
    row = _present(await fetch(READ, *_arguments(key, target), message_limit), key, target)
    session, revision = rows.session(row, key.agent_id), rows.revision(row, row["uid"])
    try:
        state = b"".join((*_base(row), *_values(row), *_messages(row, revision.message_count)))
    except (compression.Damaged, fragments.MalformedFragment) as error:
        raise CorruptData(
            f"{key} revision {revision.revision}: stored data is damaged: {error}",
            {"revision": str(revision.revision)},
        ) from error
    return Restored(session, revision, state)


def session_not_found(key: SessionKey) -> SessionNotFound:
    """There is no session of that name."""
    return SessionNotFound(f"{key} not found", {"agent_id": key.agent_id, "session_name": key.session_name})


def _arguments(key: SessionKey, target: Target) -> tuple[Any, ...]:
    return (
        placement.bucket_of(key.tenant, key.agent_id),
        key.tenant.tenant_id,
        key.agent_id,
        key.session_name,
        target.revision,
        target.checkpoint_id or None,
    )


def _present(found: Sequence[asyncpg.Record], key: SessionKey, target: Target) -> asyncpg.Record:
    if not found:
        raise session_not_found(key)
    row = found[0]
    if row["r_revision"] is not None:
        return row
    if target.revision in (None, row["head_revision"]) and not target.checkpoint_id:
        raise CorruptData(f"{key}: its head revision is missing", {"revision": str(row["head_revision"])})
    wanted = f"checkpoint_id {target.checkpoint_id!r}" if target.checkpoint_id else f"revision {target.revision}"
    raise RevisionNotFound(
        f"{key} has no {wanted}; its newest revision is {row['head_revision']}",
        {"agent_id": key.agent_id, "session_name": key.session_name},
    )


def _base(row: asyncpg.Record) -> Iterator[bytes]:
    facts = RevisionFacts(*(row[f"r_{column}"] for column in RevisionFacts._fields))
    if checksums.of_revision(facts) != row["r_checksum"]:
        raise compression.Damaged("checksum of the revision")
    yield compression.unpack(row["r_state_codec"], row["r_state_raw_size"], row["r_state"])


def _values(row: asyncpg.Record) -> Iterator[bytes]:
    for digest, raw_size, codec, payload, checksum in _together(row, "v", "digest raw_size codec payload checksum"):
        if payload is None:
            raise compression.Damaged("a value is missing")
        if checksums.of_value(raw_size, codec, digest, payload) != checksum:
            raise compression.Damaged("checksum of a value")
        yield compression.unpack(codec, raw_size, payload)


def _messages(row: asyncpg.Record, message_count: int) -> Iterator[bytes]:
    """Runs of framed messages from `low` to message_count, without a hole."""
    columns = "first_message message_count end_bytes raw_size codec digest payload checksum high"
    position = low = row["low"]
    for first, count, end_bytes, raw_size, codec, digest, payload, checksum, high in _together(row, "g", columns):
        if checksums.of_segment(first, count, end_bytes, raw_size, codec, digest, payload) != checksum:
            raise compression.Damaged(f"checksum of the messages from {first}")
        # A child may begin within its parent's last segment; the rest of that one is not this revision's.
        end = min(first + count, high)
        if not first <= position < end:
            raise compression.Damaged(f"messages from {position} are missing")
        raw = compression.unpack(codec, raw_size, payload)
        start = fragments.offset_of(raw, max(low - first, 0))
        yield raw[start : fragments.offset_of(raw, end - first) if end < first + count else None]
        if end == message_count == first + count and digest != row["r_digest"]:
            raise compression.Damaged("the messages are another revision's")
        position = end
    if position < message_count:
        raise compression.Damaged(f"messages from {position} are missing")


def _together(row: asyncpg.Record, prefix: str, columns: str) -> Iterator[tuple[Any, ...]]:
    arrays = [row[f"{prefix}_{column}"] or () for column in columns.split()]
    return zip(*arrays, strict=True)
