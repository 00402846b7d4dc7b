"""What a save needs to know of the revision it follows; remembered, because it is nearly always the one saved last.

A remembered head is only a hint: the save function accepts a plan only if the
head is still that one. So nothing goes wrong when another server has moved it.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.checksums import RevisionFacts
from session_service.postgres.states import Fetch
from session_service.sessions import digests, fragments, placement
from session_service.sessions.errors import CorruptData
from session_service.sessions.model import SessionKey
from session_service.sessions.transcript import Tail

SMALL_FIELDS = (3, 5, 6)
"""AgentState's loop_state, llm_provider and auth_context: every save gives them anew."""

VALUES_FIELD = 7
"""AgentState's values."""

_REMEMBERED_OVERHEAD = 1024
"""Bytes that a remembered head takes beside its values, roughly."""

# $1 bucket, $2 tenant, $3 agent, $4 session; or the request that made it
HEAD = """
    SELECT session_id, uid, session_name, head_revision, head_transcript_id, head_transcript_length, message_count,
        message_bytes, head_digest
    FROM sessions WHERE bucket = $1 AND tenant_id = $2 AND agent_id = $3 AND session_name = $4
"""
HEAD_BY_REQUEST = HEAD.replace("session_name = $4", "create_request_id = $4")

# $1 bucket, $2 tenant, $3 session_id, $4 revision
REVISION = """
    SELECT revision, transcript_id, message_count, message_bytes, size_bytes, digest, state_digest, state, state_codec,
        state_raw_size, value_digests, value_names, checkpoint_id, metadata, checksum
    FROM revisions WHERE bucket = $1 AND tenant_id = $2 AND session_id = $3 AND revision = $4
"""


RECENT = 8
"""Revisions among which an id that is used again for another request is noticed; as in judge_save_v2."""


class SharedValue(NamedTuple):
    """A big value, by reference."""

    digest: bytes
    size: int


class StateParts(NamedTuple):
    """A stored state without its messages and without what every save gives anew."""

    kept: bytes
    inline: Mapping[str, bytes]
    """Values stored with the revision, by name."""
    shared: Mapping[str, SharedValue]
    """Values stored once for the agent, by name."""

    @property
    def size(self) -> int:
        """Bytes of all this, uncompressed."""
        return len(self.kept) + sum(map(len, self.inline.values())) + sum(v.size for v in self.shared.values())


class PackedState(NamedTuple):
    """A state without its messages, as a row of revisions holds it."""

    small: bytes
    """What every save gives anew: this form is good as long as it and the parts stay."""
    size: int
    """Bytes of the state without its messages, uncompressed."""
    codec: int
    raw_size: int
    state: bytes
    digest: bytes
    value_digests: bytes | None
    value_names: str | None
    """JSON."""


class Base(NamedTuple):
    """A revision that a delta may build on."""

    revision: int
    etag: str
    transcript_id: int
    message_count: int
    message_bytes: int
    digest: bytes
    parts: StateParts
    packed: PackedState | None = None
    """The parts as they were stored; None: this process did not store them."""


class Head(NamedTuple):
    """The newest revision of a session."""

    session_id: int
    uid: UUID
    revision: int
    tail: Tail
    base: Base | None
    """The same revision as a base for deltas; None: not read."""
    recent: tuple[int, ...] = ()
    """request_ids (their numbers) of the revisions up to this one that this process stored in a row: at most RECENT."""

    def rules_out(self, request_id: UUID) -> bool:
        """Whether none of the last RECENT revisions can have come from this request."""
        recent = self.recent
        return (len(recent) == RECENT or len(recent) == self.revision) and request_id.int not in recent


class HeadCache:
    """The heads saved last, at most so many and of so many bytes."""

    def __init__(self, entries: int = 20_000, size: int = 64 << 20) -> None:
        self._entries = entries
        self._room = size
        self._heads: OrderedDict[SessionKey, tuple[Head, int]] = OrderedDict()

    def get(self, key: SessionKey) -> Head | None:
        """The remembered head, if any."""
        found = self._heads.get(key)
        return found[0] if found else None

    def put(self, key: SessionKey, head: Head) -> None:
        """Remembers a head."""
        before, freed = self._heads.get(key, (None, 0))
        if before and before.base and head.base and before.base.parts is head.base.parts:
            size = freed  # the usual case
        else:
            size = _REMEMBERED_OVERHEAD + (head.base.parts.size if head.base else 0)
        self._heads[key] = head, size
        if before:
            self._heads.move_to_end(key)
        self._room -= size - freed
        while self._room < 0 or len(self._heads) > self._entries:
            _, (_, freed) = self._heads.popitem(last=False)
            self._room += freed

    def forget(self, key: SessionKey) -> None:
        """Forgets a head that proved to be an old one."""
        _, size = self._heads.pop(key, (None, 0))
        self._room += size


async def read_head(fetch: Fetch, key: SessionKey, create_request_id: UUID | None = None) -> Head | None:
    """The head of a session found by its name or, if given, by the request that made it. None: there is no session."""
    scope = (placement.bucket_of(key.tenant, key.agent_id), key.tenant.tenant_id, key.agent_id)
    if create_request_id:
        rows = await fetch(HEAD_BY_REQUEST, *scope, create_request_id)
    else:
        rows = await fetch(HEAD, *scope, key.session_name)
    if not rows:
        return None
    row = rows[0]
    tail = Tail(row["head_transcript_id"], row["head_transcript_length"], row["message_count"], row["head_digest"])
    return Head(row["session_id"], row["uid"], row["head_revision"], tail, None)


async def read_base(fetch: Fetch, key: SessionKey, head: Head, revision: int) -> Base | None:
    """A revision of the head's session as a base; None: there is none of that number.

    Raises:
        CorruptData: it is damaged.
    """
    bucket = placement.bucket_of(key.tenant, key.agent_id)
    rows = await fetch(REVISION, bucket, key.tenant.tenant_id, head.session_id, revision)
    if not rows:
        return None
    row = rows[0]
    try:
        parts = _parts(row)
    except (compression.Damaged, fragments.MalformedFragment) as error:
        raise CorruptData(
            f"{key} revision {revision}: stored data is damaged: {error}", {"revision": str(revision)}
        ) from error
    etag = digests.etag(head.uid, revision, row["digest"], row["state_digest"])
    return Base(revision, etag, row["transcript_id"], row["message_count"], row["message_bytes"], row["digest"], parts)


def _parts(row: asyncpg.Record) -> StateParts:
    facts = RevisionFacts(*(row[column] for column in RevisionFacts._fields))
    if checksums.of_revision(facts) != row["checksum"]:
        raise compression.Damaged("checksum of the revision")
    kept: list[bytes] = []
    inline: dict[str, bytes] = {}
    for number, field in fragments.fields(compression.unpack(row["state_codec"], row["state_raw_size"], row["state"])):
        if number == VALUES_FIELD:
            inline[fragments.value_name(field)] = field
        elif number not in SMALL_FIELDS:
            kept.append(field)
    stored = row["value_digests"] or b""
    names = json.loads(row["value_names"] or "[]")
    found = [stored[n : n + digests.DIGEST_SIZE] for n in range(0, len(stored), digests.DIGEST_SIZE)]
    shared = {name: SharedValue(digest, size) for (name, size), digest in zip(names, found, strict=True)}
    return StateParts(b"".join(kept), inline, shared)
