"""Reads a revision with its state: one statement, and so one snapshot of the database.

Packing or a purge beside it can therefore leave no hole. Everything read is
checked; damage is CorruptData for this revision.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Any

import asyncpg

from session_service.postgres import rows, stored_state
from session_service.sessions import placement
from session_service.sessions.digests import DIGEST_SIZE
from session_service.sessions.errors import CorruptData, RevisionNotFound, SessionNotFound
from session_service.sessions.model import Restored, SessionKey, Target

Fetch = Callable[..., Awaitable[Sequence[asyncpg.Record]]]
"""Database.fetch, or the fetch of one connection."""

_FOUND_PART, _COUNT, _SIZE = 0, 2, itemgetter(5)
"""Columns of READ."""

NO_LIMIT = (1 << 63) - 1
"""Bytes that no state has."""

MANY, LARGE = 100, 512 << 10
"""Segments, and bytes of their messages, from which on other threads check and unpack them: that need not hold up the
event loop."""

# Each of the tables here is read by its primary key, whatever its statistics say: a plan may have been
# cached while the tables were young. Joins could be turned round, or made by a hash of a whole bucket;
# LATERAL with LIMIT (or with OFFSET 0, which changes nothing else) can not.
# The revision's number is found first, so that both ways go by index.
_FOUND = """
    FROM sessions AS s
    LEFT JOIN LATERAL (
        SELECT x.* FROM revisions AS x
        WHERE x.bucket = s.bucket AND x.session_id = s.session_id AND x.revision =
            CASE WHEN $6::text IS NULL THEN coalesce($5::bigint, s.head_revision) ELSE (
                SELECT k.revision FROM revisions AS k
                WHERE k.bucket = s.bucket AND k.session_id = s.session_id AND k.checkpoint_id = $6
            ) END
        LIMIT 1
    ) AS r ON true
    WHERE s.bucket = $1 AND s.tenant_id = $2 AND s.agent_id = $3 AND s.session_name = $4
"""

# $1 bucket, $2 tenant, $3 agent, $4 session, $5 revision or NULL (the head), $6 checkpoint_id or NULL
DESCRIBE = f"SELECT {rows.SESSION_COLUMNS}, {rows.REVISION_COLUMNS} {_FOUND}"

_STATE_COLUMNS = ", ".join(
    f"r.{column} AS r_{column}"
    for column in ("state", "state_codec", "state_raw_size", "value_digests", "value_names", "checksum")
)
_FOUND_COLUMNS = f"{rows.SESSION_COLUMNS}, {rows.REVISION_COLUMNS}, {_STATE_COLUMNS}"
# An anonymous composite value comes without names.
_FOUND_NAMES = (*rows.names(_FOUND_COLUMNS), "r_transcript_id", "low")

# The same, with all of the revision's row that its state needs.
FIND = f"SELECT {_FOUND_COLUMNS}, r.transcript_id AS r_transcript_id {_FOUND}"

# The same, $7: return only so many messages (0: all), and $8: nothing of a larger state. `walk` goes from the
# revision's transcript up to the oldest ancestor that is needed; each transcript
# gives the messages from its own start (or from `low`) up to where its child begins.
#
# A row for each part, in any order: the revision as one composite value, the big values (which have no message_count),
# the segments. Each further column takes time.
# Rows, because they stream; arrays of 1,000 payloads would be built, and copied, before the first byte leaves.
READ = f"""
    WITH RECURSIVE found AS (
        SELECT {_FOUND_COLUMNS}, r.transcript_id AS r_transcript_id,
            CASE WHEN $7::bigint = 0 THEN 0 ELSE greatest(r.message_count - $7, 0) END AS low
        {_FOUND}
    ),
    walk AS (
        SELECT t.transcript_id, t.parent_transcript_id, t.parent_message_count, f.r_message_count AS high, f.low
        FROM found AS f
        CROSS JOIN LATERAL (
            SELECT x.* FROM transcripts AS x
            WHERE x.bucket = $1 AND x.transcript_id = f.r_transcript_id AND x.tenant_id = $2
                AND f.r_size_bytes <= $8
            LIMIT 1
        ) AS t
        UNION ALL
        SELECT t.transcript_id, t.parent_transcript_id, t.parent_message_count,
            least(w.high, w.parent_message_count), w.low
        FROM walk AS w
        CROSS JOIN LATERAL (
            SELECT x.* FROM transcripts AS x
            WHERE x.bucket = $1 AND x.transcript_id = w.parent_transcript_id AND x.tenant_id = $2
            LIMIT 1
        ) AS t
        WHERE w.parent_message_count > w.low
    )
    SELECT f AS found, NULL::bigint AS place, NULL::integer AS message_count, NULL::bigint AS end_bytes,
        NULL::bigint AS high, NULL::integer AS raw_size, NULL::smallint AS codec, NULL::bytea AS digest,
        NULL::bytea AS payload, NULL::integer AS checksum
    FROM found AS f
    UNION ALL
    SELECT NULL, n.place, NULL, NULL, NULL, v.raw_size, v.codec, d.digest, v.payload, v.checksum
    FROM found AS f
    CROSS JOIN LATERAL generate_series(
        0, CASE WHEN f.r_size_bytes <= $8 THEN length(f.r_value_digests) / {DIGEST_SIZE} ELSE 0 END - 1
    ) AS n (place)
    CROSS JOIN LATERAL substring(f.r_value_digests FROM n.place * {DIGEST_SIZE} + 1 FOR {DIGEST_SIZE}) AS d (digest)
    LEFT JOIN LATERAL (
        SELECT x.* FROM state_values AS x
        WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.agent_id = $3 AND x.digest = d.digest
        LIMIT 1
    ) AS v ON true
    UNION ALL
    SELECT NULL, g.first_message, g.message_count, g.end_bytes, w.high, g.raw_size, g.codec, g.digest, g.payload,
        g.checksum
    FROM walk AS w
    CROSS JOIN LATERAL (
        SELECT x.* FROM transcript_segments AS x
        WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.transcript_id = w.transcript_id
            AND x.first_message < w.high
            -- From the segment that holds message `low`.
            AND x.first_message >= coalesce((
                SELECT b.first_message FROM transcript_segments AS b
                WHERE b.bucket = $1 AND b.transcript_id = w.transcript_id AND b.first_message <= w.low
                ORDER BY b.first_message DESC LIMIT 1
            ), 0)
        OFFSET 0
    ) AS g
"""  # noqa: S608  constants


async def describe(fetch: Fetch, key: SessionKey, target: Target) -> Restored:
    """A session and one of its revisions, without the state.

    Raises:
        SessionNotFound, RevisionNotFound: there is none.
    """
    row = _present(await fetch(DESCRIBE, *_arguments(key, target)), key, target)
    return Restored(rows.session(row, key.agent_id), rows.revision(row, row["uid"]), None)


async def find(fetch: Fetch, key: SessionKey, target: Target) -> rows.Row:
    """The row of a session and one of its revisions, with all that its state needs.

    Raises:
        SessionNotFound, RevisionNotFound: there is none.
    """
    return _present(await fetch(FIND, *_arguments(key, target)), key, target)


async def read(
    fetch: Fetch, key: SessionKey, target: Target, message_limit: int, max_bytes: int = NO_LIMIT
) -> Restored:
    """A session and one of its revisions, with the state; without it, if all of it has more than so many bytes.

    Args:
        fetch: runs the statement.
        key: the session.
        target: the revision.
        message_limit: only the newest so many messages; 0: all.
        max_bytes: see above.

    Raises:
        SessionNotFound, RevisionNotFound: there is none.
        CorruptData: something that the revision needs is damaged or missing.
    """
    parts = await fetch(READ, *_arguments(key, target), message_limit, max_bytes)
    others = [part for part in parts if part[_COUNT] is None]
    found = [part[_FOUND_PART] for part in others if part[_FOUND_PART] is not None]
    row = _present([dict(zip(_FOUND_NAMES, one, strict=True)) for one in found], key, target)
    session, revision = rows.session(row, key.agent_id), rows.revision(row, row["uid"])
    if revision.size_bytes > max_bytes:
        return Restored(session, revision, None)
    values = [part for part in others if part[_FOUND_PART] is None]
    segments = [part for part in parts if part[_COUNT] is not None]
    try:
        if len(segments) < MANY and sum(map(_SIZE, segments)) < LARGE:
            pieces = stored_state.pieces(row, values, segments)
        else:
            pieces = await asyncio.to_thread(stored_state.pieces, row, values, segments, shared=True)
    except stored_state.Damaged as error:
        raise damaged(key, revision.revision, error) from error
    return Restored(session, revision, pieces)


def damaged(key: SessionKey, revision: int, error: Exception) -> CorruptData:
    """Something that a revision needs is damaged or missing."""
    return CorruptData(f"{key} revision {revision}: stored data is damaged: {error}", {"revision": str(revision)})


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


def _present(found: Sequence[rows.Row], key: SessionKey, target: Target) -> rows.Row:
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
