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

MANY = 16
"""Payloads from which on they are unpacked in one go: with fewer, it takes longer to begin. Between payloads that are
unpacked singly, the thread has to get hold of the interpreter again, which another one may keep for milliseconds."""

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
    if all(chosen):
        return _unpack_together(raw_sizes, payloads)
    unpacked = iter(_unpack_together([*compress(raw_sizes, chosen)], [*compress(payloads, chosen)]))
    return [
        next(unpacked) if codec == ZSTD else unpack(codec, raw_size, payload)
        for codec, raw_size, payload in zip(codecs, raw_sizes, payloads, strict=True)
    ]


def _unpack_together(raw_sizes: Sequence[int], payloads: Sequence[bytes]) -> list[Unpacked]:
    sizes = struct.pack(f"={len(raw_sizes)}Q", *raw_sizes)
    try:
        found: Any = _decompressor().multi_decompress_to_buffer([*payloads], decompressed_sizes=sizes, threads=1)
    except zstandard.ZstdError as error:
        raise Damaged("broken zstd data") from error
    return [*found]


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
