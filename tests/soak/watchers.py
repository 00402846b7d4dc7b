"""The watchers: each gets what the log has, in its own way."""

import math
import random
from collections.abc import Sequence
from typing import Any

from agent_sessions.v1.session_pb2 import EventType

from tests.faults.watcher import ALL_TYPES, FRUGAL, Watcher
from tests.soak.writers import AGENTS

TOO_MUCH = 1200
"""Events: some hundred KiB."""

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
    """Stops reading now and then, until more has happened than fits into its queue and on its way.

    Then it takes its queue at the pace at which more happens.
    """

    def __init__(self, name: str, addresses: Sequence[str], chance: random.Random, ahead: SoakWatcher) -> None:
        """`ahead`: reads the same without pause."""
        super().__init__(name, addresses, options=FRUGAL)
        self._chance = chance
        self._ahead = ahead
        self._left = self._in_step = 0

    async def taken(self) -> bool:
        self._left -= 1
        if self._left < 0:
            self._left, self._in_step = self._chance.randrange(TOO_MUCH, 4 * TOO_MUCH), TOO_MUCH
            await self._until_ahead_by(TOO_MUCH)
        elif self._in_step:
            self._in_step -= 1
            await self._until_ahead_by(len(self._ahead.received) - len(self.received) + 1)
        return True

    async def _until_ahead_by(self, events: int) -> None:
        enough = len(self.received) + events
        await self._ahead.until(lambda: self.hurries or len(self._ahead.received) >= enough, math.inf)


def watchers(addresses: Sequence[str], seed: int) -> Sequence[SoakWatcher]:
    """One after each manner, and two that have none: one on each server."""
    steady = [SoakWatcher(f"steady, on server {n}", [address]) for n, address in enumerate(addresses)]
    return (
        *steady,
        Restless("reconnects at random", addresses, random.Random(f"{seed} restless")),  # noqa: S311 - no secret
        Slow("slow", addresses[-1:], random.Random(f"{seed} slow"), steady[-1]),  # noqa: S311 - no secret
        SoakWatcher("one agent, no saves", addresses[:1], agent_id=AGENTS[0], types=NO_SAVES),
    )
