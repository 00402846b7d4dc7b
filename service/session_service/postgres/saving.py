"""What a save writes, put together: the row for the save function, its segments and its values."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as FastUUID  # noqa: N811 - it stands in for the other one

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.checksums import RevisionFacts
from session_service.postgres.heads import RECENT, Base, Head, PackedState, SharedValue, StateParts
from session_service.postgres.operations import SaveOperation, SaveRest, SaveRow, SegmentRow, ValueRow
from session_service.sessions import digests, placement, transcript
from session_service.sessions.model import Content, Delta, Save, SessionKey
from session_service.sessions.transcript import Placed, Run, Segment, Tail

BIG_VALUE = 1024
"""Bytes from which a value is stored once per agent and content, not with every revision."""

_NO_UID = UUID(int=0)
_NO_VERSION = ~(0xF << 76 | 0x3 << 62)
_VERSION_4 = 4 << 76 | 2 << 62
NO_SEGMENT = SegmentRow(0, 0, 0, 0, 0, b"", b"", 0)
"""Of a save without messages."""


class Prepared(NamedTuple):
    """A save, and what of it does not depend on the head."""

    save: Save
    request_id: UUID
    now: datetime
    key: SessionKey
    bucket: int
    lock_keys: tuple[int, ...]
    run: Run | None
    """All messages of a snapshot; None for a delta."""
    fingerprint: bytes

    @property
    def secret(self) -> bytes:
        """Keys the tenant's digests."""
        return self.save.tenant.digest_secret


class Planned(NamedTuple):
    """An operation, and what the head will be once it is carried out."""

    operation: SaveOperation
    parts: StateParts
    packed: PackedState
    recent: tuple[int, ...]
    """See Head."""
    placement: str
    """See Placed.kind."""
    new_messages: int
    """Messages that the operation writes."""

    def head(self, session_id: int, uid: UUID, transcript_id: int, etag: str) -> Head:
        """The head that the operation made, given the ids that the database chose."""
        row = self.operation.row
        revision = row.planned_head + 1
        tail = Tail(transcript_id, row.transcript_length, row.message_count, row.digest)
        base = Base(
            revision, etag, transcript_id, row.message_count, row.message_bytes, row.digest, self.parts, self.packed
        )
        return Head(session_id, uid, revision, tail, base, self.recent)


def prepare(save: Save, now: datetime, uploaded: Run | None = None) -> Prepared:
    """Digests and fingerprints a save. save.request_id must be set.

    `uploaded`: the end of the messages, if they came piece by piece and not with the save; it then has the
    fingerprint of one that came whole.
    """
    if save.request_id is None:
        raise ValueError("a save without request_id cannot be repeated")
    key = SessionKey(save.tenant, save.agent_id, save.session_name)
    secret = save.tenant.digest_secret
    run = uploaded
    if run is None and isinstance(save.content, Content):
        run = Run.whole(secret, save.content.messages)
    bucket, lock_keys = _place(key)
    if save.server_named:
        lock_keys += (placement.naming_lock_key(save.tenant, save.agent_id, save.request_id),)
    return Prepared(save, save.request_id, now, key, bucket, lock_keys, run, _fingerprint(save, run))


def sort_values(
    secret: bytes, values: Mapping[str, bytes]
) -> tuple[dict[str, bytes], dict[str, SharedValue], list[ValueRow]]:
    """Values to be stored with the revision, values to be stored once, and the rows of the latter."""
    if not values:
        return {}, {}, []
    inline = {name: value for name, value in values.items() if len(value) < BIG_VALUE}
    big = {name: value for name, value in values.items() if len(value) >= BIG_VALUE}
    rows = [_value(secret, value) for value in big.values()]
    shared = {name: SharedValue(row.digest, row.raw_size) for name, row in zip(big, rows, strict=True)}
    return inline, shared, rows


def put_together(
    prepared: Prepared,
    head: Head | None,
    placed: Placed,
    run: Run,
    parts: StateParts,
    values: Sequence[ValueRow],
    segments: Sequence[SegmentRow] | None = None,
) -> Planned:
    """The operation that stores a revision after `head`.

    Args:
        prepared: the save.
        head: what the plan was made for.
        placed: where the messages go.
        run: messages of the new revision, up to its end.
        parts: all of its state but messages and what every save gives anew.
        values: big values to be written.
        segments: those of `placed`, if they were made ready before.
    """
    if segments is None:
        segments = [*map(segment_of, placed.segments)]
    *more, last = segments or (NO_SEGMENT,)
    packed = pack_state(prepared, head, parts)
    row = save_row(
        prepared,
        head,
        placed.transcript_id,
        placed.transcript_length,
        run.end,
        run.ends[-1],
        run.digests[-1],
        packed,
        last,
    )
    rest = _rest(prepared, head, placed, more or None, values or None)
    stored = (row.state, last.payload, *[segment.payload for segment in more], *[value.payload for value in values])
    operation = SaveOperation(prepared.lock_keys, row, rest, sum(map(len, stored)))
    return Planned(operation, parts, packed, recent_with(prepared, head), placed.kind, placed.new_messages)


def base_missing(prepared: Prepared, head: Head | None) -> Planned:
    """An operation that stores nothing: the save function may know the request, and refuses it otherwise."""
    run = Run.whole(prepared.secret, ())
    parts = StateParts(b"", {}, {})
    placed = transcript.whole(run)
    packed = pack_state(prepared, head, parts)
    row = save_row(prepared, head, None, 0, 0, 0, run.digests[-1], packed, NO_SEGMENT)
    rest = _rest(prepared, head, placed, None, None)._replace(base_missing=True, repair=False)
    return Planned(SaveOperation(prepared.lock_keys, row, rest, 0), parts, packed, (), placed.kind, 0)


def recent_with(prepared: Prepared, head: Head | None) -> tuple[int, ...]:
    """Head.recent once the save is stored."""
    return (*(head.recent[1 - RECENT :] if head else ()), prepared.request_id.int)


def pack_state(prepared: Prepared, head: Head | None, parts: StateParts) -> PackedState:
    """All of the new state but its messages; what the head has of it is not made again."""
    small = prepared.save.content.small
    known = head.base.packed if head and head.base and head.base.parts is parts else None
    if known and known.small == small:
        return known
    codec, raw_size, state = compression.pack(b"".join((small, parts.kept, *parts.inline.values())))
    names = [(name, value.size) for name, value in parts.shared.items()]
    return PackedState(
        small=small,
        size=len(small) + parts.size,
        codec=codec,
        raw_size=raw_size,
        state=state,
        digest=digests.of_state(prepared.secret, small, parts.kept, _value_digests(prepared.secret, parts)),
        value_digests=b"".join(value.digest for value in parts.shared.values()) or None,
        value_names=json.dumps(names) if names else None,
    )


def save_row(
    prepared: Prepared,
    head: Head | None,
    transcript_id: int | None,
    transcript_length: int,
    message_count: int,
    message_bytes: int,
    digest: bytes,
    packed: PackedState,
    last: SegmentRow,
) -> SaveRow:
    """What every save has: `last` is its last segment, the rest is of the new revision and its transcript."""
    save = prepared.save
    content = save.content
    if head is None:
        session_id = planned_head = 0
    else:
        session_id, planned_head = head.session_id, head.revision
    size, codec, raw_size, state, state_digest = packed[1:6]
    size += message_bytes
    if save.checkpoint_id or save.metadata or packed.value_digests:
        checkpoint_id = save.checkpoint_id or None
        metadata = json.dumps(dict(save.metadata)) if save.metadata else None
        facts = (planned_head + 1, message_count, size, raw_size, codec, digest, state_digest, state)
        checksum = checksums.of_revision(
            RevisionFacts(*facts, packed.value_digests, packed.value_names, checkpoint_id, metadata)
        )
    else:
        checkpoint_id = metadata = None
        checksum = checksums.of_plain_revision(
            planned_head + 1, message_count, size, raw_size, codec, digest, state_digest, state
        )
    # By position, in the order of SaveRow: by names it takes several times as long to make.
    return SaveRow(
        prepared.bucket,
        save.tenant.tenant_id,
        save.agent_id,
        save.session_name,
        session_id,
        planned_head,
        content.base_revision if isinstance(content, Delta) else None,
        save.expected_revision,
        prepared.request_id,
        prepared.fingerprint,
        save.user_id,
        save.client_id,
        save.actor,
        None if save.labels is None else json.dumps(dict(save.labels)),
        checkpoint_id,
        metadata,
        prepared.now,
        random_uuid(),
        transcript_id,
        transcript_length,
        message_count,
        message_bytes,
        size,
        digest,
        state_digest,
        state,
        codec,
        raw_size,
        packed.value_digests,
        packed.value_names,
        checksum,
        last.message_count,
        last.raw_size,
        last.codec,
        last.payload or None,
        last.checksum,
    )


def segment_row(
    first: int, count: int, end_bytes: int, payload: bytes, digest: bytes, level: int = compression.FAST
) -> SegmentRow:
    """A segment as it is stored; see Segment."""
    codec, raw_size, packed = compression.pack(payload, level)
    checksum = checksums.of_segment(first, count, end_bytes, raw_size, codec, digest, packed)
    return SegmentRow(first, count, end_bytes, raw_size, codec, packed, digest, checksum)


def _rest(
    prepared: Prepared,
    head: Head | None,
    placed: Placed,
    segments: Sequence[SegmentRow] | None,
    values: Sequence[ValueRow] | None,
) -> SaveRest:
    save = prepared.save
    return SaveRest(
        server_named=save.server_named,
        base_missing=False,
        uid=_NO_UID if head else random_uuid(),
        parent_transcript_id=placed.parent_transcript_id,
        parent_message_count=placed.parent_message_count,
        parent_digest=placed.parent_digest,
        parent_bytes=placed.parent_bytes,
        depth=placed.depth,
        segments=segments,
        values=values,
        repair=save.self_contained,
    )


def _value_digests(secret: bytes, parts: StateParts) -> dict[str, bytes]:
    inline = {name: digests.of_value(secret, value) for name, value in parts.inline.items()}
    return inline | {name: value.digest for name, value in parts.shared.items()}


def random_uuid() -> UUID:
    """A UUID of version 4, of a kind that asyncpg makes and sends faster than Python's own."""
    noise = int.from_bytes(os.urandom(16), "big")
    return FastUUID((noise & _NO_VERSION | _VERSION_4).to_bytes(16, "big"))


def segment_of(segment: Segment) -> SegmentRow:
    """A segment as it is stored."""
    return segment_row(segment.first_message, segment.message_count, segment.end_bytes, segment.payload, segment.digest)


def _value(secret: bytes, fragment: bytes) -> ValueRow:
    codec, raw_size, payload = compression.pack(fragment)
    digest = digests.of_value(secret, fragment)
    return ValueRow(digest, raw_size, codec, payload, checksums.of_value(raw_size, codec, digest, payload))


@lru_cache(maxsize=10_000)
def _place(key: SessionKey) -> tuple[int, tuple[int, ...]]:
    """Bucket and lock keys of a session."""
    return placement.bucket_of(key.tenant, key.agent_id), (placement.lock_key(key),)


def _fingerprint(save: Save, run: Run | None) -> bytes:
    """Over everything that the caller sent, and nothing that this server adds."""
    secret, content = save.tenant.digest_secret, save.content
    what: tuple[object, ...]
    if isinstance(content, Delta):
        appended = content.appended
        what = (
            content.base_revision,
            content.base_etag,
            content.truncate_to,
            # Where one message ends and the next begins.
            tuple(map(len, appended)),
            _values_fingerprint(secret, content.set_values) if content.set_values else (),
            tuple(sorted(content.remove_values)) if content.remove_values else (),
        )
    else:
        appended = ()
        count, messages = (run.end, run.digest(run.end)) if run else (0, b"")
        what = (count, messages, content.kept, _values_fingerprint(secret, content.values))
    return digests.of_request(
        secret,
        (
            save.agent_id,
            "" if save.server_named else save.session_name,
            save.expected_revision,
            save.user_id,
            save.client_id,
            None if save.labels is None else tuple(sorted(save.labels.items())),
            save.checkpoint_id,
            tuple(sorted(save.metadata.items())) if save.metadata else (),
            save.self_contained,
            content.small,
            what,
        ),
        appended,
    )


def _values_fingerprint(secret: bytes, values: Mapping[str, bytes]) -> tuple[bytes, ...]:
    return tuple([digests.of_value(secret, values[name]) for name in sorted(values)])
