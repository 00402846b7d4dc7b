"""The watchers: each gets what the log has, in its own way."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from agent_sessions.v1.session_pb2 import EventType

from tests.faults.watcher import ALL_TYPES, FRUGAL, Watcher
from tests.soak.writers import AGENTS

NO_SAVES = tuple(number for number in ALL_TYPES if number != EventType.EVENT_TYPE_SAVED)


class SoakWatcher(Watcher):
    """Reads without pause."""

    def __init__(self, name: str, addresses: Sequence[str], **more: Any) -> None:
        super().__init__(addresses, **more)
        self.name = name
        self.hurries = False
        """Whether to come to the end now, without any peculiarities."""


class Restless(SoakWatcher):
    """Hangs up after some events, and goes on with another server."""

    def __init__(self, name: str, addresses: Sequence[str], chance: random.Random) -> None:
        super().__init__(name, addresses)
        self._chance = chance
        self._left = 0

    async def taken(self) -> bool:
        self._left -= 1
        if self._left >= 0 or self.hurries:
            return True
        self._left = self._chance.randrange(1000)
        return False


class Slow(SoakWatcher):
    """Does something else after some events, for so long that they do not fit into its queue."""

    def __init__(self, name: str, addresses: Sequence[str], chance: random.Random) -> None:
        super().__init__(name, addresses, options=FRUGAL)
        self._chance = chance
        self._left = 0

    async def taken(self) -> bool:
        self._left -= 1
        if self._left < 0 and not self.hurries:
            self._left = self._chance.randrange(1500)
            await asyncio.sleep(self._chance.uniform(0, 3))
        return True


def watchers(addresses: Sequence[str], seed: int) -> Sequence[SoakWatcher]:
    """One after each manner, and two that have none: one on each server."""
    return (
        *(SoakWatcher(f"steady, on server {n}", [address]) for n, address in enumerate(addresses)),
        Restless("reconnects at random", addresses, random.Random(f"{seed} restless")),  # noqa: S311 - no secret
        Slow("slow", addresses[-1:], random.Random(f"{seed} slow")),  # noqa: S311 - no secret
        SoakWatcher("one agent, no saves", addresses[:1], agent_id=AGENTS[0], types=NO_SAVES),
    )
