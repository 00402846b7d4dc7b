"""Compression of payloads: zstd, where it pays, and at its fastest level where somebody waits.

Done here and not by PostgreSQL, whose pglz is slower and packs less; so payload
columns are STORAGE EXTERNAL.
"""

import struct
import threading
from collections.abc import Sequence
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import zstandard

RAW, ZSTD = 0, 1
"""What the codec column says."""

THRESHOLD = 128
"""Bytes below which compressing costs more than it saves."""

FAST, UNHURRIED = 1, 8
"""zstd's levels: while somebody waits, and when nobody does.

Of 64 messages of recorded conversations, the second takes 16 (short ones) to 40 µs for each, the first 4 to 7, and
it leaves a tenth less. From level 9 on, a hundredth less takes twice the time, and more."""

MANY = 100
"""Payloads from which on they are unpacked by several threads at once."""

THREADS = 2
"""That many. Unpacking small payloads is most of what a long state costs."""

Unpacked: TypeAlias = bytes | memoryview
"""Bytes of their own, or a part of a buffer that holds many."""

_of_thread = threading.local()


class Packed(NamedTuple):
    """A payload as it is stored."""

    codec: int
    raw_size: int
    payload: bytes


class Damaged(Exception):
    """The payload cannot be unpacked."""


def pack(raw: bytes, level: int = FAST) -> Packed:
    """Compresses, unless that would not make it smaller."""
    if len(raw) >= THRESHOLD:
        packed = _compressor(level).compress(raw)
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
            raw = _decompressor().decompress(payload, raw_size)
        except zstandard.ZstdError as error:
            raise Damaged("broken zstd data") from error
    else:
        raise Damaged("unknown codec")
    if len(raw) != raw_size:
        raise Damaged("wrong size")
    return raw


def unpack_all(codecs: Sequence[int], raw_sizes: Sequence[int], payloads: Sequence[bytes]) -> list[Unpacked]:
    """The bytes of many, each as unpack() gives them. Memory is bounded by the sum of raw_sizes.

    Raises:
        Damaged: what unpack() says of one of them.
    """
    if codecs.count(ZSTD) < MANY:
        return list(map(unpack, codecs, raw_sizes, payloads))
    chosen = [codec == ZSTD for codec in codecs]
    sizes = [*compress(raw_sizes, chosen)]
    try:
        together: Any = _decompressor().multi_decompress_to_buffer(
            [*compress(payloads, chosen)], decompressed_sizes=struct.pack(f"={len(sizes)}Q", *sizes), threads=THREADS
        )
    except zstandard.ZstdError as error:
        raise Damaged("broken zstd data") from error
    unpacked = iter(together)
    return [
        next(unpacked) if codec == ZSTD else unpack(codec, raw_size, payload)
        for codec, raw_size, payload in zip(codecs, raw_sizes, payloads, strict=True)
    ]


def _compressor(level: int) -> zstandard.ZstdCompressor:
    """One for each thread: making one takes as long as using it, and it is not to be shared."""
    if level != FAST:
        return zstandard.ZstdCompressor(level=level, write_content_size=False)
    found: zstandard.ZstdCompressor | None = getattr(_of_thread, "compressor", None)
    if found is None:
        found = _of_thread.compressor = zstandard.ZstdCompressor(level=level, write_content_size=False)
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    """One for each thread, as above."""
    found: zstandard.ZstdDecompressor | None = getattr(_of_thread, "decompressor", None)
    if found is None:
        found = _of_thread.decompressor = zstandard.ZstdDecompressor()
    return found
