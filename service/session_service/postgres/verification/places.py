"""What is known at a place in a transcript: running digest and bytes after so many messages."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from session_service.codec import compression
from session_service.postgres.states import Fetch
from session_service.postgres.verification.damage import Findings
from session_service.sessions import digests, fragments
from session_service.sessions.transcript import Run

LONGEST = 40
"""Links of a chain that are followed: more than there may be, so that damaged rows which go round in a circle end."""

MARKS_READ = 200

# $1 bucket, $2 transcript: it and its ancestors, youngest first.
CHAIN = f"""
    WITH RECURSIVE walk AS (
        SELECT t.*, 0 AS n FROM transcripts AS t WHERE t.bucket = $1 AND t.transcript_id = $2
        UNION ALL
        SELECT t.*, w.n + 1 FROM walk AS w
        CROSS JOIN LATERAL (
            SELECT x.* FROM transcripts AS x
            WHERE x.bucket = $1 AND x.transcript_id = w.parent_transcript_id
            LIMIT 1
        ) AS t
        WHERE w.n < {LONGEST}
    )
    SELECT transcript_id, tenant_id, parent_transcript_id, parent_message_count, parent_digest, parent_bytes, depth
    FROM walk ORDER BY n
"""  # noqa: S608  a constant
# $1 bucket, $2 transcript, $3 message: the segment that holds the one before it, and those that follow; $4 most.
MARKS = """
    SELECT first_message, message_count, end_bytes, digest FROM transcript_segments
    WHERE bucket = $1 AND transcript_id = $2 AND first_message >= coalesce((
        SELECT b.first_message FROM transcript_segments AS b
        WHERE b.bucket = $1 AND b.transcript_id = $2 AND b.first_message < $3
        ORDER BY b.first_message DESC LIMIT 1
    ), 0)
    ORDER BY first_message LIMIT $4
"""
# $1 bucket, $2 transcript, $3 first message. `before` is the digest of the segment before it.
SEGMENT = """
    SELECT g.digest, g.end_bytes, g.raw_size, g.codec, g.payload, (
        SELECT b.digest FROM transcript_segments AS b
        WHERE b.bucket = $1 AND b.transcript_id = $2 AND b.first_message < $3
        ORDER BY b.first_message DESC LIMIT 1
    ) AS before
    FROM transcript_segments AS g WHERE g.bucket = $1 AND g.transcript_id = $2 AND g.first_message = $3
"""


class Link(NamedTuple):
    """A row of transcripts."""

    transcript_id: int
    tenant_id: int
    parent: int | None
    low: int
    """Messages that are the parent's."""
    low_digest: bytes
    low_bytes: int
    depth: int


class Chain(NamedTuple):
    """A transcript and its ancestors, youngest first."""

    links: Sequence[Link]
    missing: int | None
    """The transcript that should come next, and is not there."""
    endless: bool
    """Too long: it goes round in a circle."""

    @property
    def complete(self) -> bool:
        """Whether all ancestors are there."""
        return self.missing is None and not self.endless

    def needed(self, count: int) -> Sequence[tuple[Link, int]]:
        """The transcripts that hold the first `count` messages, or that the way to them leads through.

        With each, up to which message.
        """
        found = []
        for link in self.links:
            found.append((link, count))
            count = min(count, link.low)
            if count <= 0:
                break
        return found


class Place(NamedTuple):
    """Running digest and framed bytes of the first so many messages."""

    digest: bytes
    size: int


class Places:
    """Looks up places of one bucket's transcripts. Remembers much, so use one for what is checked together."""

    def __init__(self, fetch: Fetch, bucket: int, findings: Findings) -> None:
        """`findings`: what is damaged is not relied upon; messages that turn out to be missing are added."""
        self._fetch = fetch
        self._bucket = bucket
        self._findings = findings
        self._chains: dict[int, Chain] = {}
        self._marks: dict[int, Sequence[asyncpg.Record]] = {}
        self._run: tuple[tuple[int, int], Run | None] = ((0, 0), None)

    async def chain(self, transcript_id: int) -> Chain:
        """A transcript and its ancestors; no links if there is no such transcript."""
        if transcript_id not in self._chains:
            rows = await self._fetch(CHAIN, self._bucket, transcript_id)
            links = [Link(*row) for row in rows]
            following = links[-1].parent if links else transcript_id
            endless = len(links) > LONGEST
            self._chains[transcript_id] = Chain(links, None if endless else following, endless)
        return self._chains[transcript_id]

    async def at(self, chain: Chain, count: int, secret: bytes) -> Place | None:
        """After the first `count` messages of a chain. None: what would tell is damaged or missing."""
        if count == 0:
            return Place(digests.start(secret), 0)
        if not chain.complete or any(self._is_damaged(link) for link, _ in chain.needed(count)):
            return None
        owner = next((link for link in chain.links if link.low < count), None)
        if owner is None:
            return None
        mark = await self._mark(owner.transcript_id, count)
        end = mark["first_message"] + mark["message_count"] if mark else owner.low
        key = (owner.transcript_id, mark["first_message"] if mark else owner.low)
        if mark and self._findings.has("transcript_segments", key):
            return None
        if end < count:
            key, what = (owner.transcript_id, end), f"messages from {end} are missing"
            self._findings.add("transcript_segments", key, what, missing_to=owner.transcript_id)
            return None
        assert mark is not None  # noqa: S101 - without one, end is below count
        if end == count:
            return Place(mark["digest"], mark["end_bytes"])
        run = await self._within(owner, mark["first_message"], secret)
        return Place(run.digest(count), run.size(count)) if run else None

    def _is_damaged(self, link: Link) -> bool:
        return self._findings.has("transcripts", (link.transcript_id,))

    async def _mark(self, transcript_id: int, count: int) -> asyncpg.Record | None:
        """The segment that begins last before message `count`."""
        marks = self._marks.get(transcript_id, ())
        place = bisect_left(marks, count, key=_first)
        if place == 0 or place == len(marks):
            marks = await self._fetch(MARKS, self._bucket, transcript_id, count, MARKS_READ)
            self._marks = {transcript_id: marks}
            place = bisect_left(marks, count, key=_first)
        return marks[place - 1] if place else None

    async def _within(self, owner: Link, first: int, secret: bytes) -> Run | None:
        """The messages of a segment; None, if they are not those that its digest was made of."""
        key = (owner.transcript_id, first)
        if self._run[0] != key:
            self._run = (key, await self._read(owner, first, secret))
        return self._run[1]

    async def _read(self, owner: Link, first: int, secret: bytes) -> Run | None:
        rows = await self._fetch(SEGMENT, self._bucket, owner.transcript_id, first)
        if not rows:
            return None
        row = rows[0]
        start = owner.low_digest if row["before"] is None else row["before"]
        try:
            messages = list(fragments.split(compression.unpack(row["codec"], row["raw_size"], row["payload"])))
        except (compression.Damaged, fragments.MalformedFragment):
            return None
        run = Run.after(secret, first, start, row["end_bytes"] - row["raw_size"], messages)
        return run if run.digests[-1] == row["digest"] else None


def _first(mark: asyncpg.Record) -> int:
    return int(mark["first_message"])
