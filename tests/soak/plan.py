"""How long and how hard."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One run."""

    events: int = 100_000
    """In the log at the end, at least."""
    kills: int = 20
    """SIGKILLs to servers, in turns, spread over the events."""
    naive: bool = False
    """Let the servers read the log by event numbers alone: must lose events."""
    seed: int = 1
    writers: int = 32
    processes: int = 4
    """That the writers run in."""
    longest_peace: float = 2.0
    """Seconds between two terminations of backends, at most."""
