"""Removes events that are older than the log is kept."""

import time
from datetime import UTC, datetime, timedelta

from session_service.postgres.pool import Database
from session_service.sessions.observer import Observer, SilentObserver

SOURCE = 0
"""The log: one so far."""

PIECE = 1000
"""Events removed by one transaction: some milliseconds."""

TRIM = "SELECT * FROM trim_events_v1($1, $2, $3, $4)"


class EventTrimmer:
    """The chore that trims session_events, always from its oldest end.

    A repeated restore, delete or undelete is found by its event, so events are kept at least as long as a request_id
    is good for.
    """

    name = "trim events"

    def __init__(self, database: Database, keep: timedelta, observer: Observer | None = None) -> None:
        """`keep`: how long events are kept."""
        self._database = database
        self._keep = keep
        self._observer = observer or SilentObserver()

    async def step(self) -> bool:
        """See Chore."""
        now, began = datetime.now(UTC), time.perf_counter()
        found = await self._database.fetch(TRIM, SOURCE, now - self._keep, now, PIECE)
        if not found:
            return False
        (row,) = found
        self._observer.trimmed(row["removed"], time.perf_counter() - began)
        if row["more"]:
            return True
        self._observer.log_reaches_back((now - row["oldest"]).total_seconds() if row["oldest"] else 0.0)
        return False
