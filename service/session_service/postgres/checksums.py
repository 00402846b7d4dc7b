"""CRC-32 over all that a reader takes from a row, so that damage is found where it is.

A CRC finds every error of up to 32 bits in a row; tampering is not its business.
"""

import json
import zlib
from typing import NamedTuple


def of_segment(
    first_message: int, message_count: int, end_bytes: int, raw_size: int, codec: int, digest: bytes, payload: bytes
) -> int:
    """For transcript_segments."""
    facts = first_message, message_count, end_bytes, raw_size, codec, len(digest), len(payload)
    return _signed(zlib.crc32(b"".join((b"%d %d %d %d %d[%d, %d]" % facts, digest, payload))))


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
    parts = [digest, state_digest, state, value_digests or b""]
    if value_names or checkpoint_id or metadata:
        texts = (_canonical(value_names), checkpoint_id or "", _canonical(metadata))
        parts += (text.encode() for text in texts)
        return _signed(_crc(b"%d %d %d %d %d" % tuple(numbers), *parts))
    # The usual revision, in one step; the same bytes as above.
    sizes = len(digest), len(state_digest), len(state), len(value_digests or b"")
    head = b"%d %d %d %d %d[%d, %d, %d, %d]" % (*numbers, *sizes)
    return _signed(zlib.crc32(b"".join((head, *parts))))


def _canonical(text: str | None) -> str:
    # PostgreSQL gives jsonb back with other spaces and another order of keys.
    return json.dumps(json.loads(text), sort_keys=True) if text else ""


def _crc(numbers: bytes, *parts: bytes) -> int:
    # The lengths come first, so that bytes cannot move from one part to the next unnoticed.
    return zlib.crc32(b"".join((numbers, repr([*map(len, parts)]).encode(), *parts)))


def _signed(crc: int) -> int:
    return crc - (1 << 32) if crc >= 1 << 31 else crc
