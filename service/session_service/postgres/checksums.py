"""CRC-32 over all that a reader takes from a row, so that damage is found where it is.

A CRC finds every error of up to 32 bits in a row; tampering is not its business.
"""

import json
import zlib
from collections.abc import Sequence
from typing import NamedTuple

_SEGMENT = b"%d %d %d %d %d[%d, %d]"
_PLAIN_REVISION = b"%d %d %d %d %d[%d, %d, %d, 0]"


def of_segment(
    first_message: int, message_count: int, end_bytes: int, raw_size: int, codec: int, digest: bytes, payload: bytes
) -> int:
    """For transcript_segments."""
    facts = first_message, message_count, end_bytes, raw_size, codec, len(digest), len(payload)
    return _signed(zlib.crc32(b"".join((_SEGMENT % facts, digest, payload))))


def of_segments(
    first_message: Sequence[int],
    message_count: Sequence[int],
    end_bytes: Sequence[int],
    raw_size: Sequence[int],
    codec: Sequence[int],
    digest: Sequence[bytes],
    payload: Sequence[bytes],
) -> list[int]:
    """of_segment() of each of many, in two thirds of the time."""
    facts = zip(
        first_message, message_count, end_bytes, raw_size, codec, map(len, digest), map(len, payload), strict=True
    )
    heads = map(_SEGMENT.__mod__, facts)
    crcs = map(zlib.crc32, map(b"".join, zip(heads, digest, payload, strict=True)))
    return [crc - (1 << 32) if crc >= 1 << 31 else crc for crc in crcs]


def of_value(raw_size: int, codec: int, digest: bytes, payload: bytes) -> int:
    """For state_values."""
    return _signed(_crc(f"{raw_size} {codec}".encode(), digest, payload))


class RevisionFacts(NamedTuple):
    """All that a reader takes from a row of revisions."""

    revision: int
    message_count: int
    size_bytes: int
    state_raw_size: int
    state_codec: int
    digest: bytes
    state_digest: bytes
    state: bytes
    value_digests: bytes | None
    value_names: str | None
    """JSON."""
    checkpoint_id: str | None
    metadata: str | None
    """JSON."""


def of_revision(facts: RevisionFacts) -> int:
    """For revisions."""
    *numbers, digest, state_digest, state, value_digests, value_names, checkpoint_id, metadata = facts
    if not (value_digests or value_names or checkpoint_id or metadata):
        return of_plain_revision(*facts[:8])
    texts = (_canonical(value_names), checkpoint_id or "", _canonical(metadata))
    parts = [digest, state_digest, state, value_digests or b""]
    if any(texts):
        parts += (text.encode() for text in texts)
    return _signed(_crc(b"%d %d %d %d %d" % tuple(numbers), *parts))


def of_plain_revision(
    revision: int,
    message_count: int,
    size_bytes: int,
    state_raw_size: int,
    state_codec: int,
    digest: bytes,
    state_digest: bytes,
    state: bytes,
) -> int:
    """What of_revision() gives for one without big values, checkpoint and metadata, as nearly all are."""
    numbers = revision, message_count, size_bytes, state_raw_size, state_codec
    sizes = len(digest), len(state_digest), len(state)
    return _signed(zlib.crc32(b"".join((_PLAIN_REVISION % (*numbers, *sizes), digest, state_digest, state))))


def _canonical(text: str | None) -> str:
    # PostgreSQL gives jsonb back with other spaces and another order of keys.
    return json.dumps(json.loads(text), sort_keys=True) if text else ""


def _crc(numbers: bytes, *parts: bytes) -> int:
    # The lengths come first, so that bytes cannot move from one part to the next unnoticed.
    return zlib.crc32(b"".join((numbers, repr([*map(len, parts)]).encode(), *parts)))


def _signed(crc: int) -> int:
    return crc - (1 << 32) if crc >= 1 << 31 else crc
