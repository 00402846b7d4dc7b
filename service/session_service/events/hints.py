"""Somebody says that the log has grown. Only a hint: it may be late, lost or wrong."""

import asyncio
from enum import IntEnum


class Hint(IntEnum):
    """What was said, from least to most."""

    NONE = 0
    SAVES = 1
    """Of what was written nothing but saves is known."""
    OTHERS = 2
    """Something else was written: restores, deletes."""
    WATCHES = 3
    """Somebody wants events that nobody wanted before."""


class Hints:
    """Collects hints for the one who waits for them."""

    def __init__(self) -> None:
        self._said = Hint.NONE
        self._least = Hint.SAVES
        self._waiting: asyncio.Future[None] | None = None

    def tell(self, hint: Hint) -> None:
        """Say that something was written."""
        self._said = max(self._said, hint)
        if self._said >= self._least and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def wait(self, least: Hint, seconds: float) -> Hint:
        """Wait for a hint, at least of that kind, or until the time is over; returns, and forgets, what was said."""
        self._least = least
        if self._said < least:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await asyncio.wait({self._waiting}, timeout=seconds)
            finally:
                self._waiting = None
        said = self._said
        if said >= least:
            self._said = Hint.NONE
        return said if said >= least else Hint.NONE
