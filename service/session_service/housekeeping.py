"""Work that nobody waits for: done piece by piece beside the calls, within a budget."""

import asyncio
import time
from collections.abc import Sequence
from typing import Protocol

import structlog

IDLE = 10.0
"""Seconds until a chore that found nothing to do, or failed, is asked again."""

_log = structlog.stdlib.get_logger(__name__)


class Chore(Protocol):
    """Something to be done again and again, by one replica at a time."""

    name: str

    async def step(self) -> bool:
        """Do one piece, in short transactions; True: there may be more to do.

        Whoever does the same elsewhere is kept out by the chore itself, for as long as a transaction lasts: a
        replica that dies in the middle then blocks nobody. A step that finds another at work returns False.
        """


class Housekeeping:
    """Keeps every chore going, each at its own pace."""

    def __init__(self, chores: Sequence[Chore], budget: float, idle: float = IDLE) -> None:
        """`budget`: seconds of work per minute and chore, 0 to 60; 0: nothing is done."""
        self._chores = chores
        self._share = budget / 60
        self._idle = idle

    async def run(self) -> None:
        """Work until cancelled."""
        if self._share > 0:
            await asyncio.gather(*map(self._keep, self._chores))

    async def _keep(self, chore: Chore) -> None:
        while True:
            began = time.monotonic()
            try:
                more = await chore.step()
            except Exception as error:
                # The database may be away, or a chore mistaken: neither must end the others.
                _log.exception("housekeeping failed", chore=chore.name, error=repr(error))
                more = False
            took = time.monotonic() - began
            await asyncio.sleep(took / self._share - took if more else self._idle)
