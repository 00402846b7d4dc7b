"""Prepares saves: what a save writes, given the head that it follows."""

import json
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.operations import SaveOperation, SaveRow, SegmentRow, ValueRow
from session_service.postgres.states import Fetch
from session_service.postgres.transcripts import Placer, Snapshot
from session_service.sessions import digests, fragments, placement, transcript
from session_service.sessions.model import Save, SessionKey
from session_service.sessions.transcript import Placed, Tail

BIG_VALUE = 1024
"""Bytes from which a value is stored once per agent and content, not with every revision."""

_HEAD_COLUMNS = """
    session_id, session_name, head_revision, head_transcript_id, head_transcript_length, message_count, head_digest
"""

# $1 bucket, $2 tenant, $3 agent, $4 session
HEAD = f"""
    SELECT {_HEAD_COLUMNS} FROM sessions
    WHERE bucket = $1 AND tenant_id = $2 AND agent_id = $3 AND session_name = $4
"""  # noqa: S608  constants

# $1 bucket, $2 tenant, $3 agent, $4 request_id
HEAD_BY_REQUEST = f"""
    SELECT {_HEAD_COLUMNS} FROM sessions
    WHERE bucket = $1 AND tenant_id = $2 AND agent_id = $3 AND create_request_id = $4
"""  # noqa: S608  constants


@dataclass(frozen=True, slots=True)
class Prepared:
    """A save and all of it that does not depend on the head."""

    save: Save
    request_id: UUID
    now: datetime
    key: SessionKey
    bucket: int
    lock_keys: tuple[int, ...]
    snapshot: Snapshot
    message_bytes: int
    state: compression.Packed
    state_digest: bytes
    values: tuple[ValueRow, ...]
    size_bytes: int
    fingerprint: bytes


def prepare(save: Save, now: datetime) -> Prepared:
    """Digests, compresses and fingerprints a save. save.request_id must be set."""
    if save.request_id is None:
        raise ValueError("a save without request_id cannot be repeated")
    secret = save.tenant.digest_secret
    key = SessionKey(save.tenant, save.agent_id, save.session_name)
    messages = save.content.messages
    snapshot = Snapshot(messages, digests.running(secret, messages))
    message_bytes = sum(map(fragments.framed_size, messages))
    values = save.content.values
    small = [value for value in values.values() if len(value) < BIG_VALUE]
    big = sorted(name for name, value in values.items() if len(value) >= BIG_VALUE)
    state_digest = digests.of_state(secret, save.content.base, values)
    return Prepared(
        save=save,
        request_id=save.request_id,
        now=now,
        key=key,
        bucket=placement.bucket_of(save.tenant, save.agent_id),
        lock_keys=_lock_keys(save, key),
        snapshot=snapshot,
        message_bytes=message_bytes,
        state=compression.pack(b"".join((save.content.base, *small))),
        state_digest=state_digest,
        values=tuple(_value(secret, values[name], repair=save.self_contained) for name in big),
        size_bytes=message_bytes + len(save.content.base) + sum(map(len, values.values())),
        fingerprint=_fingerprint(save, snapshot.digests[-1], state_digest),
    )


async def plan(prepared: Prepared, fetch: Fetch) -> tuple[SaveOperation, Placed]:
    """Reads the head and decides what to write. The save function checks that the head is still the same."""
    save = prepared.save
    head = await _head(prepared, fetch)
    if head is None or save.self_contained:
        placed = transcript.whole(prepared.snapshot.messages, prepared.snapshot.digests)
    else:
        tail = Tail(
            head["head_transcript_id"],
            head["head_transcript_length"],
            head["message_count"],
            head["head_digest"],
        )
        placed = await Placer(fetch, prepared.bucket, save.tenant.tenant_id).place(prepared.snapshot, tail)
    segments = [_segment(segment) for segment in placed.segments]
    row = _row(prepared, placed, head["session_id"] if head else 0, head["head_revision"] if head else 0)
    return SaveOperation(prepared.lock_keys, row, segments, prepared.values), placed


async def _head(prepared: Prepared, fetch: Fetch) -> asyncpg.Record | None:
    save = prepared.save
    scope = (prepared.bucket, save.tenant.tenant_id, save.agent_id)
    if save.server_named:
        # A repeated request finds the session it made; a name that is taken is refused anyway.
        rows = await fetch(HEAD_BY_REQUEST, *scope, prepared.request_id)
    else:
        rows = await fetch(HEAD, *scope, save.session_name)
    return rows[0] if rows else None


def _row(prepared: Prepared, placed: Placed, planned_session_id: int, planned_head: int) -> SaveRow:
    save, digest = prepared.save, prepared.snapshot.digests[-1]
    checkpoint_id, metadata = save.checkpoint_id or None, save.metadata
    value_digests = b"".join(value.digest for value in prepared.values) or None
    return SaveRow(
        bucket=prepared.bucket,
        tenant_id=save.tenant.tenant_id,
        agent_id=save.agent_id,
        session_name=save.session_name,
        server_named=save.server_named,
        planned_session_id=planned_session_id,
        planned_head=planned_head,
        expected_revision=save.expected_revision,
        request_id=prepared.request_id,
        fingerprint=prepared.fingerprint,
        user_id=save.user_id,
        client_id=save.client_id,
        actor=save.actor,
        labels=None if save.labels is None else json.dumps(dict(save.labels)),
        checkpoint_id=checkpoint_id,
        metadata=json.dumps(dict(metadata)) if metadata else None,
        save_time=prepared.now,
        uid=uuid4(),
        event_id=uuid4(),
        transcript_id=placed.transcript_id,
        parent_transcript_id=placed.parent_transcript_id,
        parent_message_count=placed.parent_message_count,
        parent_digest=placed.parent_digest,
        depth=placed.depth,
        transcript_length=placed.transcript_length,
        message_count=len(prepared.snapshot.messages),
        message_bytes=prepared.message_bytes,
        size_bytes=prepared.size_bytes,
        digest=digest,
        state_digest=prepared.state_digest,
        state=prepared.state.payload,
        state_codec=prepared.state.codec,
        state_raw_size=prepared.state.raw_size,
        value_digests=value_digests,
        checksum=checksums.of_revision(
            revision=planned_head + 1,
            message_count=len(prepared.snapshot.messages),
            size_bytes=prepared.size_bytes,
            state_raw_size=prepared.state.raw_size,
            state_codec=prepared.state.codec,
            digest=digest,
            state_digest=prepared.state_digest,
            state=prepared.state.payload,
            value_digests=value_digests,
            checkpoint_id=checkpoint_id,
            metadata=metadata,
        ),
    )


def _segment(segment: transcript.Segment) -> SegmentRow:
    packed = compression.pack(segment.payload)
    checksum = checksums.of_segment(
        segment.first_message,
        segment.message_count,
        packed.raw_size,
        packed.codec,
        segment.digest,
        packed.payload,
    )
    return SegmentRow(
        segment.first_message,
        segment.message_count,
        packed.raw_size,
        packed.codec,
        packed.payload,
        segment.digest,
        checksum,
    )


def _value(secret: bytes, fragment: bytes, *, repair: bool) -> ValueRow:
    packed = compression.pack(fragment)
    digest = digests.of_value(secret, fragment)
    checksum = checksums.of_value(packed.raw_size, packed.codec, digest, packed.payload)
    return ValueRow(digest, packed.raw_size, packed.codec, packed.payload, checksum, repair)


def _lock_keys(save: Save, key: SessionKey) -> tuple[int, ...]:
    if save.server_named and save.request_id is not None:
        return placement.lock_key(key), placement.naming_lock_key(save.tenant, save.agent_id, save.request_id)
    return (placement.lock_key(key),)


def _fingerprint(save: Save, digest: bytes, state_digest: bytes) -> bytes:
    """Over everything that the caller sent, and nothing that this server adds."""
    labels = None if save.labels is None else json.dumps(sorted(save.labels.items()))
    return digests.of_request(
        save.tenant.digest_secret,
        (
            "save",
            save.agent_id,
            "" if save.server_named else save.session_name,
            save.expected_revision,
            save.user_id,
            save.client_id,
            labels,
            save.checkpoint_id,
            json.dumps(sorted(save.metadata.items())),
            save.self_contained,
            digest,
            len(save.content.messages),
            state_digest,
        ),
    )
