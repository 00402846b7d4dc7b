"""Checks transcripts: their segments one by one, and their own numbers, which have no checksum, against these."""

from collections.abc import Mapping
from typing import NamedTuple

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.states import Fetch
from session_service.postgres.verification.damage import NO_TENANT, Findings
from session_service.postgres.verification.places import Chain, Link, Place, Places
from session_service.sessions import digests, fragments
from session_service.sessions.model import Tenant

READ_TOGETHER = 32
"""Segments, each of up to 1 MiB, or one larger message."""

# $1 bucket, $2 transcript, $3 message after whose segment to read, $4 most.
SEGMENTS = """
    SELECT first_message, message_count, end_bytes, raw_size, codec, digest, payload, checksum, tenant_id
    FROM transcript_segments WHERE bucket = $1 AND transcript_id = $2 AND first_message > $3
    ORDER BY first_message LIMIT $4
"""


class _Known(NamedTuple):
    """What must hold where the next segment begins; None: what would tell is damaged."""

    position: int | None
    place: Place | None
    tenant_id: int | None


_NOTHING = _Known(None, None, None)


class TranscriptCheck:
    """Checks one transcript after another, in the order of their ids: ancestors first."""

    def __init__(self, fetch: Fetch, bucket: int, tenants: Mapping[int, Tenant], findings: Findings) -> None:
        self._fetch = fetch
        self._bucket = bucket
        self._tenants = tenants
        self._findings = findings
        self._places = Places(fetch, bucket, findings)

    async def check(self, transcript_id: int) -> int:
        """Checks a transcript, or segments that have none; returns how many segments there are."""
        chain = await self._places.chain(transcript_id)
        known = await self._check_row(chain) if chain.links else _NOTHING
        count, last = 0, -1
        while rows := await self._fetch(SEGMENTS, self._bucket, transcript_id, last, READ_TOGETHER):
            for row in rows:
                known = self._check_segment(transcript_id, row, known, is_first=count == 0)
                count += 1
            last = rows[-1]["first_message"]
        return count

    async def _check_row(self, chain: Chain) -> _Known:
        link = chain.links[0]
        key = (link.transcript_id,)
        if chain.missing is not None and len(chain.links) == 1:
            missing = f"missing; transcript {link.transcript_id} begins in it"
            self._findings.add("transcripts", (chain.missing,), missing, missing_to=link.transcript_id)
            return _NOTHING
        if what := await self._wrong(chain, link):
            self._findings.add("transcripts", key, what)
            return _NOTHING
        return _Known(link.low, Place(link.low_digest, link.low_bytes), link.tenant_id)

    async def _wrong(self, chain: Chain, link: Link) -> str | None:
        """What is wrong with a row, as far as its ancestors tell; None: nothing."""
        tenant = self._tenants.get(link.tenant_id)
        if tenant is None:
            return f"tenant_id: {NO_TENANT}"
        if link.parent is not None and link.parent >= link.transcript_id:
            return "parent_transcript_id: not an older one"
        if (link.parent is None) != (link.low == 0):
            return "parent_message_count: some messages of a parent exactly if there is one"
        if chain.complete and link.depth != len(chain.links) - 1:
            return f"depth: it has {len(chain.links) - 1} ancestors"
        if len(chain.links) > 1 and chain.links[1].tenant_id != link.tenant_id:
            return "tenant_id: not its parent's"
        ancestors = Chain(chain.links[1:], chain.missing, chain.endless)
        place = await self._places.at(ancestors, link.low, tenant.digest_secret)
        if place is None:
            return None
        if place.digest != link.low_digest:
            return "parent_digest: not that of the parent's first messages"
        if place.size != link.low_bytes:
            return "parent_bytes: not those of the parent's first messages"
        return None

    def _check_segment(self, transcript_id: int, row: asyncpg.Record, known: _Known, *, is_first: bool) -> _Known:
        first, count, end_bytes, raw_size, codec, digest, payload, checksum, tenant_id = row
        key = (transcript_id, first)
        if checksums.of_segment(first, count, end_bytes, raw_size, codec, digest, payload) != checksum:
            self._findings.add("transcript_segments", key, "checksum")
            return _NOTHING._replace(tenant_id=known.tenant_id)
        if known.position is not None and first > known.position:
            what = f"messages from {known.position} to {first - 1} are missing"
            self._findings.add("transcript_segments", (transcript_id, known.position), what, missing_to=transcript_id)
            known = _NOTHING._replace(tenant_id=known.tenant_id)
        try:
            messages = list(fragments.split(compression.unpack(codec, raw_size, payload)))
        except (compression.Damaged, fragments.MalformedFragment) as error:
            self._findings.add("transcript_segments", key, str(error))
            return _NOTHING._replace(tenant_id=known.tenant_id)
        self._compare(key, row, messages, known, is_first=is_first)
        return _Known(first + count, Place(digest, end_bytes), known.tenant_id or tenant_id)

    def _compare(
        self, key: tuple[int, int], row: asyncpg.Record, messages: list[bytes], known: _Known, *, is_first: bool
    ) -> None:
        """Compares a sound segment with what is known of its beginning."""
        tenant = self._tenants.get(known.tenant_id or row["tenant_id"])
        if tenant is None or row["tenant_id"] != (known.tenant_id or row["tenant_id"]):
            self._findings.add("transcript_segments", key, "tenant_id: not the transcript's")
            return
        if len(messages) != row["message_count"]:
            self._findings.add("transcript_segments", key, f"message_count: it holds {len(messages)}")
        if known.position is not None and key[1] < known.position:
            self._findings.add("transcript_segments", key, f"holds messages below {known.position} again")
            return
        if known.place is None:
            return
        # The first one rests on the numbers of its transcript, which have no checksum; it has one.
        blamed, where = ("transcripts", key[:1]) if is_first else ("transcript_segments", key)
        if digests.running(tenant.digest_secret, messages, known.place.digest)[-1] != row["digest"]:
            self._findings.add(blamed, where, "parent_digest: not that of what is before" if is_first else "digest")
        elif known.place.size != row["end_bytes"] - row["raw_size"]:
            self._findings.add(blamed, where, "parent_bytes: not those of what is before" if is_first else "end_bytes")
