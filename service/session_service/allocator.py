"""What the C library does with memory that was freed.

An answer of a megabyte is built, copied and sent in as many blocks of that size. glibc gives each back to the kernel
and asks for it anew, page by page.
"""

import ctypes
import os

KEPT = 16 << 20
"""Free bytes at the end of a heap that are kept; there is one for all small work, and some for threads."""

_SINGLE = 8 << 20
"""Bytes from which on a block is got from the kernel by itself: more than most answers have."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h. Left alone, glibc adapts both, to less than what one call needs."""

_OPERATORS_OWN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Keeps a bounded part of it for the next call; returns whether this C library, and the environment, let us."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name in os.environ for name in _OPERATORS_OWN):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _SINGLE) and mallopt(_M_TRIM_THRESHOLD, KEPT))
