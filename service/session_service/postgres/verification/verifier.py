"""Goes through all rows of all tenants, beside everything else that happens to them."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from session_service.postgres.search import ValueKey
from session_service.postgres.states import Fetch
from session_service.postgres.verification import values
from session_service.postgres.verification.damage import NO_TENANT, Damage, Findings
from session_service.postgres.verification.sessions import Bucket, SessionCheck
from session_service.postgres.verification.transcripts import TranscriptCheck
from session_service.postgres.walk import LIST_TRANSCRIPTS
from session_service.sessions.model import Tenant

ATTEMPTS = 3
"""Times that something must be found before it counts: packing or a purge beside it may have changed the rows."""

LISTED = 1000
TOLD_EVERY = 5.0
"""Seconds between two words on how far it is."""

TENANTS = "SELECT tenant_id, name, digest_secret FROM tenants"
# $1 bucket from which on to look.
NEXT_BUCKET = """
    SELECT least(
        (SELECT bucket FROM sessions WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
        (SELECT bucket FROM revisions WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
        (SELECT bucket FROM transcripts WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
        (SELECT bucket FROM transcript_segments WHERE bucket >= $1 ORDER BY bucket LIMIT 1),
        (SELECT bucket FROM state_values WHERE bucket >= $1 ORDER BY bucket LIMIT 1)
    ) AS bucket
"""
# $1 bucket, $2 transcripts: those that are being uploaded or removed, or are gone by now. They need not be whole.
PASSING = """
    SELECT u.id FROM unnest($2::bigint[]) AS u (id)
    WHERE EXISTS (SELECT FROM suspect_transcripts AS s WHERE s.bucket = $1 AND s.transcript_id = u.id)
        OR EXISTS (
            SELECT FROM transcripts AS t
            WHERE t.bucket = $1 AND t.transcript_id = u.id AND t.upload_deadline IS NOT NULL
        )
        OR NOT EXISTS (SELECT FROM transcripts AS t WHERE t.bucket = $1 AND t.transcript_id = u.id)
            AND NOT EXISTS (SELECT FROM transcript_segments AS g WHERE g.bucket = $1 AND g.transcript_id = u.id)
"""
# $1 bucket, $2 session after which to list, $3 most. Also revisions that have no session.
LIST_SESSIONS = """
    WITH RECURSIVE listed AS (
        SELECT $2::bigint AS id, 0 AS n
        UNION ALL
        SELECT least(
            (SELECT s.session_id FROM sessions AS s WHERE s.bucket = $1 AND s.session_id > l.id
                ORDER BY s.session_id LIMIT 1),
            (SELECT r.session_id FROM revisions AS r WHERE r.bucket = $1 AND r.session_id > l.id
                ORDER BY r.session_id LIMIT 1)
        ), l.n + 1
        FROM listed AS l WHERE l.id IS NOT NULL AND l.n < $3
    )
    SELECT id FROM listed WHERE id IS NOT NULL AND n > 0 ORDER BY n
"""


class Progress(Protocol):
    """Hears how far it is."""

    def __call__(self, bucket: int, checked: Mapping[str, int]) -> None:
        """`checked`: rows by table. Buckets go up to 1023."""


class Verifier:
    """Checks everything; what is damaged never stops it."""

    def __init__(self, fetch: Fetch, progress: Progress) -> None:
        self._fetch = fetch
        self._progress = progress
        self._tenants: Mapping[int, Tenant] = {}
        self._told = time.monotonic()
        self.checked: Counter[str] = Counter()
        """Rows by table."""

    async def damages(self) -> AsyncIterator[Damage]:
        """Everything that is damaged, bucket by bucket."""
        bucket = 0
        while (found := (await self._fetch(NEXT_BUCKET, bucket))[0]["bucket"]) is not None:
            findings = await self._check_bucket(found)
            # Tenants may come while it is read.
            if any(NO_TENANT in damage.what for damage in findings):
                findings = await self._check_bucket(found)
            for damage in findings:
                yield damage
            bucket = found + 1

    async def _check_bucket(self, number: int) -> Findings:
        self._tenants = {row[0]: Tenant(*row) for row in await self._fetch(TENANTS)}
        findings = Findings(number)
        strayed: dict[ValueKey, ValueKey] = {}
        value: ValueKey | None = values.FIRST
        while value is not None:
            count, value, astray = await values.check(self._fetch, number, value, self._tenants, findings)
            strayed.update(astray)
            self._count(number, "state_values", count)
        async for transcript_id in self._listed(LIST_TRANSCRIPTS, number):
            await self._check_transcript(number, transcript_id, findings)
        async for session_id in self._listed(LIST_SESSIONS, number):
            await self._check_session(Bucket(self._fetch, number, self._tenants, findings, strayed), session_id)
        if unneeded := findings.unneeded():
            findings.excuse([row["id"] for row in await self._fetch(PASSING, number, [*unneeded])])
        return findings

    async def _check_transcript(self, number: int, transcript_id: int, findings: Findings) -> None:
        known = Findings(number)
        known.take(findings)
        count = await TranscriptCheck(self._fetch, number, self._tenants, known).check(transcript_id)
        self._count(number, "transcripts", 1)
        self._count(number, "transcript_segments", count)
        if len(known) > len(findings):
            for _ in range(1, ATTEMPTS):
                again = Findings(number)
                again.take(findings)
                await TranscriptCheck(self._fetch, number, self._tenants, again).check(transcript_id)
                known.confirm(again)
            findings.take(known)

    async def _check_session(self, bucket: Bucket, session_id: int) -> None:
        known = Findings(bucket.number)
        known.take(bucket.findings)
        count = await SessionCheck(bucket._replace(findings=known), session_id).check()
        self._count(bucket.number, "sessions", 1)
        self._count(bucket.number, "revisions", count)
        if len(known) > len(bucket.findings):
            for _ in range(1, ATTEMPTS):
                again = Findings(bucket.number)
                again.take(bucket.findings)
                await SessionCheck(bucket._replace(findings=again), session_id).check()
                known.confirm(again)
        bucket.findings.take(known)

    async def _listed(self, statement: str, number: int) -> AsyncIterator[int]:
        last: int | None = -1
        while last is not None:
            ids = [row["id"] for row in await self._fetch(statement, number, last, LISTED)]
            for one in ids:
                yield one
            last = ids[-1] if len(ids) == LISTED else None

    def _count(self, bucket: int, table: str, rows: int) -> None:
        self.checked[table] += rows
        if time.monotonic() - self._told > TOLD_EVERY:
            self._told = time.monotonic()
            self._progress(bucket, self.checked)
