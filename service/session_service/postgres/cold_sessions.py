"""Finds the sessions to pack: a walk through all of them by primary key, whose place is kept in the database.

Nothing on the way of a save tells what there is to pack: that would be one more row or index entry for each save. The
walk reads both tables in the order of their keys, a few milliseconds for a thousand sessions, and goes round no more
often than sessions come to rest.

Its place is held by a lease: one server walks and packs at a time. The lease is no lock; what is written
elsewhere checks it, and would be right without it.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID, uuid4

import asyncpg

from session_service.postgres.pool import Database
from session_service.sessions import placement
from session_service.sessions.model import SessionKey, Tenant

LEASE = 60.0
"""Seconds after which another server goes on where one has stopped."""

WALKED = 1000
"""Sessions that one statement looks at."""

FOUND = 32
"""Sessions at most that it gives."""

BEGINNING, BEYOND = (-1, 0), (placement.BUCKETS, 0)
"""Before and behind all sessions: a bucket and a session_id."""

# $1 holder, $2 seconds of the lease, $3 seconds between rounds, $4 whether to begin anew in another's place
CLAIM = """
    UPDATE packing_state AS p
    SET holder = $1, held_until = now() + make_interval(secs => $2),
        walked_bucket = CASE WHEN $4 THEN -1 ELSE p.walked_bucket END,
        walked_session_id = CASE WHEN $4 THEN 0 ELSE p.walked_session_id END
    WHERE p.source = 0 AND (
        $4 OR ((p.holder = $1 OR p.held_until < now())
            AND (p.walked_bucket >= 0 OR p.round_ended <= now() - make_interval(secs => $3)))
    )
    RETURNING p.walked_bucket, p.walked_session_id
"""

# $1 holder, $2 seconds of the lease
HOLD = """
    UPDATE packing_state SET held_until = now() + make_interval(secs => $2) WHERE source = 0 AND holder = $1
    RETURNING source
"""
RELEASE = "UPDATE packing_state SET held_until = '-infinity' WHERE source = 0 AND holder = $1"

# Spans agents: $1 bucket and $2 session after which to look, $3 at how many, $4 how many to give. Given are those that
# were saved after they had been packed last, but not after $5, or were left unfinished and not saved after $6 (NULL:
# whenever). The row without a head tells how far this came, and whether it met what is known of purged sessions.
# Both tables are read once, in the order of their keys; a FULL JOIN cannot become a loop of one within the other.
SCAN = f"""
    WITH walked AS MATERIALIZED (
        SELECT s.bucket, s.session_id, s.tenant_id, s.head_revision, s.head_transcript_id, s.update_time, s.agent_id,
            s.session_name
        FROM sessions AS s WHERE (s.bucket, s.session_id) > ($1, $2::bigint)
        ORDER BY s.bucket, s.session_id LIMIT $3
    ),
    reached AS MATERIALIZED (
        SELECT w.bucket, w.session_id FROM walked AS w
        UNION ALL SELECT {BEYOND[0]}, {BEYOND[1]} WHERE (SELECT count(*) FROM walked) < $3
        ORDER BY bucket DESC, session_id DESC LIMIT 1
    ),
    remembered AS MATERIALIZED (
        SELECT x.* FROM packed_sessions AS x
        WHERE (x.bucket, x.session_id) > ($1, $2::bigint)
            AND (x.bucket, x.session_id) <= (SELECT r.bucket, r.session_id FROM reached AS r)
    ),
    compared AS MATERIALIZED (
        SELECT w.*, p.head_revision AS packed_revision, p.open_transcript_id,
            coalesce(w.update_time <= $5, true) AS rests, coalesce(w.update_time <= $6, true) AS rests_long
        FROM walked AS w FULL JOIN remembered AS p ON p.bucket = w.bucket AND p.session_id = w.session_id
    ),
    found AS MATERIALIZED (
        SELECT * FROM compared
        WHERE session_id IS NOT NULL AND (
            (packed_revision IS DISTINCT FROM head_revision AND rests)
            OR (open_transcript_id IS NOT NULL AND rests_long)
        )
        ORDER BY bucket, session_id LIMIT $4
    )
    SELECT r.bucket, r.session_id, NULL::bigint AS head_revision, NULL::bigint AS growing,
        NULL::bigint[] AS transcripts, NULL::text AS agent_id, NULL::text AS session_name, NULL::bigint AS tenant_id,
        NULL::text AS tenant, NULL::bytea AS digest_secret,
        EXISTS (SELECT FROM compared WHERE session_id IS NULL) AS purged
    FROM reached AS r
    UNION ALL
    (SELECT f.bucket, f.session_id, f.head_revision,
        CASE WHEN NOT f.rests_long THEN f.head_transcript_id END,
        ARRAY(
            SELECT r.transcript_id FROM revisions AS r
            WHERE r.bucket = f.bucket AND r.tenant_id = f.tenant_id AND r.session_id = f.session_id
                AND r.revision > coalesce(f.packed_revision, 0)
            UNION SELECT f.open_transcript_id WHERE f.open_transcript_id IS NOT NULL
        ),
        f.agent_id, f.session_name, f.tenant_id, t.name, t.digest_secret, NULL
    FROM found AS f
    CROSS JOIN LATERAL (SELECT x.* FROM tenants AS x WHERE x.tenant_id = f.tenant_id LIMIT 1) AS t
    ORDER BY f.bucket, f.session_id)
"""  # noqa: S608  constants

# Spans agents: what is known of sessions that were purged, between two places ($1, $2 and $3, $4).
FORGET = """
    DELETE FROM packed_sessions AS p
    WHERE (p.bucket, p.session_id) > ($1, $2::bigint) AND (p.bucket, p.session_id) <= ($3, $4::bigint)
        AND (
            SELECT true FROM sessions AS s WHERE s.bucket = p.bucket AND s.session_id = p.session_id LIMIT 1
        ) IS NULL
"""

# A row for each session: $1 … $5 arrays
NOTE = """
    INSERT INTO packed_sessions (bucket, session_id, tenant_id, head_revision, open_transcript_id)
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])
    ON CONFLICT (bucket, session_id) DO UPDATE
    SET head_revision = excluded.head_revision, open_transcript_id = excluded.open_transcript_id
"""

# $1 holder, $2 seconds of the lease, $3, $4 how far, $5 whether that is the end
MOVE = """
    UPDATE packing_state
    SET walked_bucket = $3, walked_session_id = $4, held_until = now() + make_interval(secs => $2),
        round_ended = CASE WHEN $5 THEN now() ELSE round_ended END
    WHERE source = 0 AND holder = $1
"""


class ColdSession(NamedTuple):
    """A session that was saved since it was packed, or that was left unfinished."""

    bucket: int
    session_id: int
    head_revision: int
    growing: int | None
    """The transcript that may still grow, if any is treated so."""
    transcripts: Sequence[int]
    """Those that have to be looked at."""
    key: SessionKey


class Packed(NamedTuple):
    """A session that was packed up to the head it was found with."""

    session: ColdSession
    open_transcript_id: int | None
    """A transcript of which something was left."""


class Rests(NamedTuple):
    """Seconds without a save, after which something is done; 0: at once."""

    pack_after: float
    """A session is packed."""
    finish_after: float = 86_400.0
    """Its transcript is not taken for a growing one any more, and packed to the end."""


class Walk:
    """One server's part in the walk."""

    def __init__(self, database: Database, rests: Rests, pause: float, *, take_over: bool = False) -> None:
        """Do nothing yet.

        Args:
            database: where the sessions are.
            rests: which sessions are wanted.
            pause: seconds between two rounds.
            take_over: begin at once and at the beginning, in the place of whoever walks now.
        """
        self._database = database
        self._holder = uuid4()
        self._rests = rests
        self._pause = pause
        self._take_over = take_over
        self._held_since = 0.0
        self._from = self._to = BEGINNING
        self._purged = False

    @property
    def holder(self) -> UUID:
        """What this server's lease is told by."""
        return self._holder

    async def find(self) -> Sequence[ColdSession] | None:
        """Some sessions to pack, from the walk's place on. None: another walks, or it is not time for a round yet."""
        now = time.monotonic()
        claimed = await self._database.fetchrow(CLAIM, self._holder, LEASE, self._pause, self._take_over)
        if claimed is None:
            return None
        self._held_since, self._take_over = now, False
        self._from = (claimed["walked_bucket"], claimed["walked_session_id"])
        rests = map(_ago, self._rests)
        rows = await self._database.fetch(SCAN, *self._from, WALKED, FOUND, *rests)
        found = [_session(row) for row in rows if row["head_revision"] is not None]
        (came,) = (row for row in rows if row["head_revision"] is None)
        self._purged = came["purged"]
        # Where more were found than given, only as far as the last one.
        self._to = (found[-1].bucket, found[-1].session_id) if len(found) == FOUND else (came[0], came[1])
        return found

    async def hold(self) -> bool:
        """Keep the lease. False: it is another's by now, who goes on from where the sessions last found began."""
        now = time.monotonic()
        if now - self._held_since > LEASE / 3:
            if await self._database.fetchrow(HOLD, self._holder, LEASE) is None:
                return False
            self._held_since = now
        return True

    async def go_on(self, packed: Sequence[Packed]) -> bool:
        """Note what was packed of what find() gave, and go on behind it. False: the round has come to its end."""
        if packed:
            rows = (
                (one.bucket, one.session_id, one.key.tenant.tenant_id, one.head_revision, left) for one, left in packed
            )
            await self._database.fetch(NOTE, *map(list, zip(*rows, strict=True)))
        if self._purged:
            await self._database.fetch(FORGET, *self._from, *self._to)
        ends = self._to == BEYOND
        await self._database.fetch(MOVE, self._holder, LEASE, *(BEGINNING if ends else self._to), ends)
        return not ends

    async def release(self) -> None:
        """Leave the walk to others at once."""
        await self._database.fetch(RELEASE, self._holder)


def _ago(seconds: float) -> datetime | None:
    return datetime.now(UTC) - timedelta(seconds=seconds) if seconds else None


def _session(row: asyncpg.Record) -> ColdSession:
    tenant = Tenant(row["tenant_id"], row["tenant"], row["digest_secret"])
    key = SessionKey(tenant, row["agent_id"], row["session_name"])
    return ColdSession(row["bucket"], row["session_id"], row["head_revision"], row["growing"], row["transcripts"], key)
