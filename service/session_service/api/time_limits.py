"""Time limits of many futures with one timer: nearly all of them are done long before."""

import asyncio
import math
from typing import Any


class TimeLimits:
    """Cancels futures (tasks are some) whose time has passed."""

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Future[Any], float] = {}
        self._passed: set[asyncio.Future[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        """When the timer looks: never later than the earliest deadline, perhaps earlier."""

    def begin(self, future: asyncio.Future[Any], seconds: float) -> None:
        """Cancel the future after a time, unless `end` comes first."""
        deadline = asyncio.get_running_loop().time() + seconds
        self._deadlines[future] = deadline
        if deadline < self._next:
            self._look_at(deadline)

    def end(self, future: asyncio.Future[Any]) -> bool:
        """Forget the future; tells whether it was cancelled here."""
        self._deadlines.pop(future, None)
        if future in self._passed:
            self._passed.remove(future)
            return True
        return False

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, moment: float) -> None:
        self.close()
        self._next = moment
        self._timer = asyncio.get_running_loop().call_at(moment, self._look)

    def _look(self) -> None:
        # What is due within a millisecond is due: the loop's clock is no finer.
        now = asyncio.get_running_loop().time() + 0.001
        for future in [future for future, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[future]
            self._passed.add(future)
            future.cancel()
        self._next, self._timer = math.inf, None
        if self._deadlines:
            self._look_at(min(self._deadlines.values()))
