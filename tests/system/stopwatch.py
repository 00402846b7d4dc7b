"""Where the time of a run goes, told at its end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

DURATIONS: list[tuple[str, float]] = []
"""What was done, and the seconds it took, in order."""


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Remember how long the block takes, also if it fails."""
    began = time.monotonic()
    try:
        yield
    finally:
        DURATIONS.append((what, time.monotonic() - began))
