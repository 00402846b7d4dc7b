"""Checks a session and its revisions: each row by itself, and that all it needs is there and is its own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.checksums import RevisionFacts
from session_service.postgres.search import ValueKey
from session_service.postgres.states import Fetch
from session_service.postgres.verification.damage import NO_TENANT, Findings, Owner
from session_service.postgres.verification.places import Chain, Places
from session_service.sessions import placement
from session_service.sessions.digests import DIGEST_SIZE
from session_service.sessions.model import Tenant

READ_TOGETHER = 100
"""Revisions, with their states."""

# $1 bucket, $2 session: it, the revision that is its head, and where the head's transcript ends.
SESSION = """
    SELECT s.tenant_id, s.agent_id, s.session_name, s.head_revision, s.head_transcript_id, s.head_transcript_length,
        s.message_count, s.message_bytes, s.size_bytes, s.head_digest,
        r.transcript_id AS r_transcript_id, r.message_count AS r_message_count, r.message_bytes AS r_message_bytes,
        r.size_bytes AS r_size_bytes, r.digest AS r_digest,
        g.first_message AS last_first, g.first_message + g.message_count AS last_end
    FROM (
        -- Of all indexes that begin with the bucket, only the one of the ids has this order.
        SELECT i.* FROM sessions AS i WHERE i.bucket = $1 AND i.session_id >= $2 ORDER BY i.session_id LIMIT 1
    ) AS s
    LEFT JOIN LATERAL (
        SELECT x.* FROM revisions AS x
        WHERE x.bucket = $1 AND x.session_id = $2 AND x.revision = s.head_revision
        LIMIT 1
    ) AS r ON true
    LEFT JOIN LATERAL (
        SELECT y.first_message, y.message_count FROM transcript_segments AS y
        WHERE y.bucket = $1 AND y.transcript_id = s.head_transcript_id
        ORDER BY y.first_message DESC LIMIT 1
    ) AS g ON true
    WHERE s.session_id = $2
"""
# $1 bucket, $2 session, $3 revision after which to read, $4 most.
REVISIONS = """
    SELECT tenant_id, transcript_id, message_bytes, parent_revision, checksum,
        revision, message_count, size_bytes, state_raw_size, state_codec, digest, state_digest, state, value_digests,
        value_names, checkpoint_id, metadata
    FROM revisions WHERE bucket = $1 AND session_id = $2 AND revision > $3
    ORDER BY revision LIMIT $4
"""
# $1 bucket, $2 session.
IS_PURGED = "SELECT 1 FROM purged_sessions WHERE bucket = $1 AND session_id = $2"
# $1 bucket, $2 session, $3 transcript, $4 revision that is not meant.
NAMED = """
    SELECT 1 WHERE EXISTS (
        SELECT FROM transcript_segments WHERE bucket = $1 AND transcript_id = $3
    ) OR EXISTS (
        SELECT FROM revisions WHERE bucket = $1 AND session_id = $2 AND transcript_id = $3 AND revision <> $4
    )
"""
# $1 bucket, $2 tenant, $3 agent, $4 digests.
STORED = """
    SELECT v.digest FROM unnest($4::bytea[]) AS d (digest)
    CROSS JOIN LATERAL (
        SELECT x.digest FROM state_values AS x
        WHERE x.bucket = $1 AND x.tenant_id = $2 AND x.agent_id = $3 AND x.digest = d.digest
        LIMIT 1
    ) AS v
"""


class Bucket(NamedTuple):
    """What is known of a bucket whose values and transcripts have been checked."""

    fetch: Fetch
    number: int
    tenants: Mapping[int, Tenant]
    findings: Findings
    strayed: Mapping[ValueKey, ValueKey]
    """Of damaged values that belong under another key, the key that they are under."""


class SessionCheck:
    """Checks one session."""

    def __init__(self, bucket: Bucket, session_id: int) -> None:
        self._bucket = bucket
        self._id = session_id
        self._findings = bucket.findings
        self._places = Places(bucket.fetch, bucket.number, bucket.findings)
        self._stored: set[bytes] = set()
        self._owner: Owner
        self._tenant: Tenant
        self._tenant_id: int
        self._head_transcript_id: int

    async def check(self) -> int:
        """Checks it; returns how many revisions there are."""
        rows = await self._bucket.fetch(SESSION, self._bucket.number, self._id)
        if not rows:
            return await self._check_ownerless()
        row = rows[0]
        self._tenant_id = row["tenant_id"]
        self._head_transcript_id = row["head_transcript_id"]
        tenant = self._bucket.tenants.get(self._tenant_id)
        if tenant is None:
            self._findings.add("sessions", (self._id,), f"tenant_id: {NO_TENANT}")
            return 0
        self._tenant = tenant
        self._owner = Owner(self._tenant.name, row["agent_id"], row["session_name"])
        if placement.bucket_of(self._tenant, row["agent_id"]) != self._bucket.number:
            self._findings.add("sessions", (self._id,), "bucket: not that of its agent")
        count, last = 0, 0
        while revisions := await self._revisions(last):
            await self._check_values(revisions)
            for revision in revisions:
                self._miss(last + 1, revision["revision"])
                await self._check_revision(revision)
                last = revision["revision"]
            count += len(revisions)
        self._miss(last + 1, row["head_revision"] + 1)
        await self._check_head()
        return count

    async def _revisions(self, after: int) -> Sequence[asyncpg.Record]:
        return await self._bucket.fetch(REVISIONS, self._bucket.number, self._id, after, READ_TOGETHER)

    async def _check_ownerless(self) -> int:
        if await self._revisions(0) and not await self._bucket.fetch(IS_PURGED, self._bucket.number, self._id):
            self._findings.add("sessions", (self._id,), "missing, though it has revisions")
        return 0

    def _miss(self, first: int, end: int) -> None:
        for number in range(first, end):
            self._findings.add("revisions", (self._id, number), "missing")
            self._findings.needs("revisions", (self._id, number), self._owner, number)

    async def _check_revision(self, row: asyncpg.Record) -> None:
        number = row["revision"]
        what = _wrong(row)
        if row["tenant_id"] != self._tenant_id:
            what = what or "tenant_id: not the session's"
        if not 0 <= row["parent_revision"] < number:
            what = what or "parent_revision: not an older one"
        chain = await self._places.chain(row["transcript_id"])
        what = what or await self._messages_wrong(row, chain)
        if what:
            self._findings.add("revisions", (self._id, number), what)
        self._note_needs(row, chain)

    async def _messages_wrong(self, row: asyncpg.Record, chain: Chain) -> str | None:
        """What a revision, sound by itself, tells wrongly of its messages; None: nothing, or others are to blame."""
        if not chain.links:
            if not await self._is_named_elsewhere(row):
                return f"transcript_id: there is no transcript {row['transcript_id']}"
            self._findings.add("transcripts", (row["transcript_id"],), "missing")
            return None
        count, digest, youngest = row["message_count"], row["digest"], chain.links[0]
        place = await self._places.at(chain, count, self._tenant.digest_secret)
        if place is None:
            if count == youngest.low and youngest.low_digest != digest:
                self._findings.add("transcripts", (youngest.transcript_id,), "parent_digest: not its revision's")
            return None
        if place.digest != digest:
            return "digest: not that of its messages"
        return None if place.size == row["message_bytes"] else f"message_bytes: its messages have {place.size}"

    async def _is_named_elsewhere(self, row: asyncpg.Record) -> bool:
        """Whether something else knows the transcript of a revision, so that it is there no more."""
        transcript_id = row["transcript_id"]
        return (
            transcript_id == self._head_transcript_id
            or self._findings.has("transcripts", (transcript_id,))
            or bool(await self._bucket.fetch(NAMED, self._bucket.number, self._id, transcript_id, row["revision"]))
        )

    def _note_needs(self, row: asyncpg.Record, chain: Chain) -> None:
        """Whatever is damaged of what a revision needs is noted to be needed by it."""
        if not len(self._findings):
            return
        number, needs = row["revision"], self._findings.needs
        needs("revisions", (self._id, number), self._owner, number)
        ends = dict[int, int]()
        for link, end in chain.needed(row["message_count"]):
            ends[link.transcript_id] = end
            needs("transcripts", (link.transcript_id,), self._owner, number)
        if chain.missing is not None or not chain.links:
            missing = row["transcript_id"] if chain.missing is None else chain.missing
            needs("transcripts", (missing,), self._owner, number)
        for key in self._findings.of("transcript_segments"):
            transcript_id, first = key
            if isinstance(transcript_id, int) and isinstance(first, int) and first < ends.get(transcript_id, -1):
                needs("transcript_segments", key, self._owner, number)
        for value in self._values(row):
            needs("state_values", value, self._owner, number)
            needs("state_values", self._bucket.strayed.get(value, value), self._owner, number)

    async def _check_values(self, revisions: Sequence[asyncpg.Record]) -> None:
        """Whether all values that sound revisions name are there."""
        named = {value.digest for row in revisions if not _wrong(row) for value in self._values(row)} - self._stored
        if not named:
            return
        scope = (self._bucket.number, self._tenant_id, self._owner.agent_id)
        found = {row["digest"] for row in await self._bucket.fetch(STORED, *scope, sorted(named))}
        for digest in named - found:
            key = ValueKey(self._tenant_id, self._owner.agent_id, digest)
            if key not in self._bucket.strayed:
                self._findings.add("state_values", key, "missing")
        self._stored |= named

    def _values(self, row: asyncpg.Record) -> Sequence[ValueKey]:
        digests = row["value_digests"] or b""
        return [
            ValueKey(self._tenant_id, self._owner.agent_id, digests[start : start + DIGEST_SIZE])
            for start in range(0, len(digests), DIGEST_SIZE)
        ]

    async def _check_head(self) -> None:
        """Whether the session tells of its head what the head's revision and messages do: all as they are now."""
        rows = await self._bucket.fetch(SESSION, self._bucket.number, self._id)
        if not rows:
            return
        row = rows[0]
        what = await self._head_wrong(row)
        if what is None and not self._findings.has("revisions", (self._id, row["head_revision"])):
            what = next((name for name, of_revision in _SAME if row[name] != row[of_revision]), None)
        if what:
            self._findings.add("sessions", (self._id,), f"{what}: not that of its head")
        self._findings.needs("sessions", (self._id,), self._owner, row["head_revision"])

    async def _head_wrong(self, row: asyncpg.Record) -> str | None:
        """What the session tells wrongly of its head's messages; None: nothing, or nothing that can be told."""
        chain = await self._places.chain(row["head_transcript_id"])
        if not chain.links:
            return None  # found missing already, or the revision tells
        if not await self._ends_right(row):
            return "head_transcript_length"
        if row["message_count"] > row["head_transcript_length"]:
            return "message_count"
        place = await self._places.at(chain, row["message_count"], self._tenant.digest_secret)
        if place and place.digest != row["head_digest"]:
            return "head_digest"
        return "message_bytes" if place and place.size != row["message_bytes"] else None

    async def _ends_right(self, row: asyncpg.Record) -> bool:
        """Whether the session tells rightly how long its head's transcript is."""
        transcript_id, last = row["head_transcript_id"], row["last_first"]
        chain = await self._places.chain(transcript_id)
        end = chain.links[0].low if last is None else row["last_end"]
        return bool(row["head_transcript_length"] == end) or (
            self._findings.has("transcripts", (transcript_id,))
            or self._findings.has("transcript_segments", (transcript_id, last or 0))
            or self._findings.has("transcript_segments", (transcript_id, end))  # the last one is missing
        )


_SAME = (
    ("message_count", "r_message_count"),
    ("message_bytes", "r_message_bytes"),
    ("size_bytes", "r_size_bytes"),
    ("head_digest", "r_digest"),
    ("head_transcript_id", "r_transcript_id"),
)
"""Columns of sessions, and of the revision that is the head."""


def _wrong(row: asyncpg.Record) -> str | None:
    """What is wrong with a revision by itself; None: nothing."""
    facts = RevisionFacts(*(row[column] for column in RevisionFacts._fields))
    try:
        if checksums.of_revision(facts) != row["checksum"]:
            return "checksum"
        compression.unpack(facts.state_codec, facts.state_raw_size, facts.state)
    except (compression.Damaged, ValueError) as error:
        return str(error)
    return None
