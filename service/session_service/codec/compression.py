"""Compression of payloads: zstd at its fastest level, where it pays.

Done here and not by PostgreSQL, whose pglz is slower and packs less; so payload
columns are STORAGE EXTERNAL.
"""

import threading
from typing import NamedTuple

import zstandard

RAW, ZSTD = 0, 1
"""What the codec column says."""

THRESHOLD = 128
"""Bytes below which compressing costs more than it saves."""


_of_thread = threading.local()


class Packed(NamedTuple):
    """A payload as it is stored."""

    codec: int
    raw_size: int
    payload: bytes


class Damaged(Exception):
    """The payload cannot be unpacked."""


def pack(raw: bytes) -> Packed:
    """Compresses, unless that would not make it smaller."""
    if len(raw) >= THRESHOLD:
        packed = _compressor().compress(raw)
        if len(packed) < len(raw):
            return Packed(ZSTD, len(raw), packed)
    return Packed(RAW, len(raw), raw)


def unpack(codec: int, raw_size: int, payload: bytes) -> bytes:
    """The bytes that were packed. Memory is bounded by raw_size.

    Raises:
        Damaged: unknown codec, broken data, or another size than raw_size.
    """
    if codec == RAW:
        raw = payload
    elif codec == ZSTD:
        try:
            raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=raw_size)
        except zstandard.ZstdError as error:
            raise Damaged("broken zstd data") from error
    else:
        raise Damaged("unknown codec")
    if len(raw) != raw_size:
        raise Damaged("wrong size")
    return raw


def _compressor() -> zstandard.ZstdCompressor:
    """One for each thread: making one takes as long as using it, and it is not to be shared."""
    found: zstandard.ZstdCompressor | None = getattr(_of_thread, "compressor", None)
    if found is None:
        found = _of_thread.compressor = zstandard.ZstdCompressor(level=1, write_content_size=False)
    return found
