"""For how long the oldest running transaction has held events back, and how soon to look again."""

import time
from collections.abc import Callable

import structlog

from session_service.sessions.events import LogPage

LONG = 10.0
"""Seconds after which the log tells that events are held back."""

LONGEST_PAUSE = 0.1
"""Seconds until the next look for events that are held back, once it has lasted."""

_log = structlog.stdlib.get_logger(__name__)


class HeldBack:
    """Judges page after page."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._xmin = 0
        self._since = clock()
        self._pause = 0.0
        self._has_told = False
        self.age = 0.0
        """Seconds since the oldest running transaction was first seen as such; 0 if none that writes is running."""

    def look(self, page: LogPage) -> None:
        """Take the next page into account."""
        now = self._clock()
        if page.xmin != self._xmin or page.xmin == page.xmax:
            self._xmin, self._since = page.xmin, now
        self.age = now - self._since
        if self.age >= LONG and not self._has_told:
            _log.warning("an open transaction holds back events", transaction_id=page.xmin, seconds=round(self.age, 1))
            self._has_told = True
        elif self.age == 0 and self._has_told:
            _log.info("events are not held back any more")
            self._has_told = False

    def pause(self, shortest: float) -> float:
        """Seconds until the next look for events that are held back: longer each time in a row."""
        self._pause = min(max(2 * self._pause, shortest), LONGEST_PAUSE)
        return self._pause

    def passed(self) -> None:
        """Nothing that is wanted is held back now."""
        self._pause = 0.0
