"""CRC-32 over all that a reader takes from a row, so that damage is found where it is.

A CRC finds every error of up to 32 bits in a row; tampering is not its business.
"""

import json
import zlib
from collections.abc import Mapping, Sequence


def of_segment(
    first_message: int, message_count: int, end_bytes: int, raw_size: int, codec: int, digest: bytes, payload: bytes
) -> int:
    """For transcript_segments."""
    numbers = f"{first_message} {message_count} {end_bytes} {raw_size} {codec}"
    return _signed(_crc(numbers.encode(), digest, payload))


def of_value(raw_size: int, codec: int, digest: bytes, payload: bytes) -> int:
    """For state_values."""
    return _signed(_crc(f"{raw_size} {codec}".encode(), digest, payload))


def of_revision(
    *,
    revision: int,
    message_count: int,
    size_bytes: int,
    state_raw_size: int,
    state_codec: int,
    digest: bytes,
    state_digest: bytes,
    state: bytes,
    value_digests: bytes | None,
    value_names: Sequence[Sequence[str | int]],
    checkpoint_id: str | None,
    metadata: Mapping[str, str],
) -> int:
    """For revisions."""
    numbers = f"{revision} {message_count} {size_bytes} {state_raw_size} {state_codec}"
    texts = json.dumps([checkpoint_id, sorted(metadata.items()), *value_names])
    return _signed(_crc(numbers.encode(), digest, state_digest, value_digests or b"", texts.encode(), state))


def _crc(*parts: bytes) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, zlib.crc32(len(part).to_bytes(8, "big"), crc))
    return crc


def _signed(crc: int) -> int:
    return crc - (1 << 32) if crc >= 1 << 31 else crc
