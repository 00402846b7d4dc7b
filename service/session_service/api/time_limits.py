"""Time limits of many tasks with one timer: nearly all of them are done long before."""

import asyncio
import math
from typing import Any


class TimeLimits:
    """Cancels tasks whose time has passed."""

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        self._passed: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        """When the timer looks: never later than the earliest deadline, perhaps earlier."""

    def begin(self, task: asyncio.Task[Any], seconds: float) -> None:
        """Cancel the task after a time, unless `end` comes first."""
        deadline = asyncio.get_running_loop().time() + seconds
        self._deadlines[task] = deadline
        if deadline < self._next:
            self._look_at(deadline)

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Forget the task; tells whether it was cancelled here."""
        self._deadlines.pop(task, None)
        if task in self._passed:
            self._passed.remove(task)
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
        for task in [task for task, deadline in self._deadlines.items() if deadline <= now]:
            del self._deadlines[task]
            self._passed.add(task)
            task.cancel()
        self._next, self._timer = math.inf, None
        if self._deadlines:
            self._look_at(min(self._deadlines.values()))
