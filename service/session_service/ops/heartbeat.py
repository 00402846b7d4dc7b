"""Whether the event loop still turns."""

import asyncio
import time

_INTERVAL = 0.5
_STALE = 10.0
"""Seconds without a tick after which the process no longer counts as alive."""


class Heartbeat:
    """Ticks in the event loop; any thread may ask for the last tick."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            self._last = time.monotonic()
            await asyncio.sleep(_INTERVAL)

    def is_alive(self) -> bool:
        """Tell whether the loop ticked recently."""
        return time.monotonic() - self._last < _STALE
