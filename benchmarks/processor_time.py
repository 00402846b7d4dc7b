"""Processor time of the processes of a measurement, by their part in it: it tells where a save's time goes."""

from collections.abc import Iterable, Mapping

import psutil

CLIENT, SERVER, POSTGRES = "client", "server", "PostgreSQL"
PARTS = (CLIENT, SERVER, POSTGRES)


class Clocks:
    """What processes have taken so far, in user and kernel mode. Made before what is to be measured."""

    def __init__(self, pids: Mapping[str, Iterable[int]]) -> None:
        """`pids`: by part. What this machine or user cannot look at is not counted."""
        self._begun = {pid: seconds for found in pids.values() for pid in found if (seconds := taken(pid)) is not None}

    def since(self, pids: Mapping[str, Iterable[int]]) -> dict[str, float]:
        """Return the seconds of each part since then, also of processes that began meanwhile, not of those that ended.

        Parts without any process are missing.
        """
        found: dict[str, float] = {}
        for part, members in pids.items():
            for pid in members:
                if (seconds := taken(pid)) is not None:
                    found[part] = found.get(part, 0.0) + seconds - self._begun.get(pid, 0.0)
        return found


def taken(pid: int) -> float | None:
    """Return the seconds that a process has taken; None if it cannot be asked."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)
