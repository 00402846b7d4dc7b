"""What the cases of watching are called, and how much they do."""

from dataclasses import dataclass

LATENCY, STREAMS, SAVES, COST = "watch:latency", "watch:streams", "watch:saves", "watch:cost"
CASES = (LATENCY, STREAMS, SAVES, COST)


@dataclass(frozen=True)
class Sizes:
    """How much the cases do in one round. What is compared takes turns, in slices of a second or a few."""

    slices: int = 3
    """Turns of `watch:latency`."""
    events: int = 300
    """Restores in each of them."""
    streams: int = 1000
    """Watches at once, each of an agent of its own, in the other cases."""
    watcher_processes: int = 2
    streams_per_channel: int = 100
    """A connection may carry only so many calls at once; gRPC's own limit is often 100."""
    events_per_second: int = 500
    stream_slices: int = 4
    """Turns of `watch:streams`."""
    stream_events: int = 2000
    """Restores in each of them."""
    save_slices: int = 5
    """Turns of `watch:saves`."""
    cost_slices: int = 8
    """Turns of `watch:cost`; each is one time through the messages of its case."""
