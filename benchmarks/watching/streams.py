"""`watch:streams`: a thousand streams of one server, each of an agent of its own, beside one that gets everything.

Two servers on two databases are up at the same time, and get the same restores in turns.
"""

from benchmarks.database import Cluster
from benchmarks.watching.rig import Figures, note, p50, p99, restore
from benchmarks.watching.sizes import Sizes
from benchmarks.watching.watched import agents_of, watched

ONE, MANY, IDLE = "one", "many", "idle"


async def measure(cluster: Cluster, template: str, sizes: Sizes) -> Figures:
    """Return latencies with one stream and with many, by turn, and the memory of a watcher to whom nothing happens."""
    figures, agents = Figures(), agents_of(sizes)
    async with (
        watched(cluster, template, [{}], sizes) as one,
        watched(cluster, template, [{"agent_id": agent} for agent in agents], sizes) as many,
    ):
        note(figures, IDLE, bytes=many.bytes_of_a_watch, seconds=many.seconds_to_begin)
        for number in range(sizes.stream_slices):
            for name, place in ((ONE, one), (MANY, many))[:: 1 if number % 2 else -1]:
                found = await restore(
                    place.caller, place.watchers, agents, sizes.stream_events, sizes.events_per_second, number
                )
                rate = (len(found.sent) - 1) / found.seconds
                note(figures, name, p50=p50(found.sent), p99=p99(found.sent), rate=rate)
    return figures
