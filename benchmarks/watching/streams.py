"""`watch:streams`: a thousand streams of one server, each of an agent of its own, beside one that gets everything."""

from collections.abc import Sequence
from typing import Any

from benchmarks.database import Cluster
from benchmarks.servers import server
from benchmarks.watching.rig import Figures, callers, note, p50, p99, resident_bytes, restore, wait_for_watches, watches
from benchmarks.watching.sizes import Sizes

ONE, MANY, IDLE = "one", "many", "idle"


def agents_of(sizes: Sizes) -> list[str]:
    """Return the agents that are watched, one by each stream."""
    return [f"watched-{number}" for number in range(sizes.streams)]


async def measure(cluster: Cluster, database: str, sizes: Sizes) -> Figures:
    """Return latencies with one stream and with many, by turn, and the memory of a watcher to whom nothing happens."""
    figures, agents = Figures(), agents_of(sizes)
    many = [{"agent_id": agent} for agent in agents]
    async with (
        server(cluster.url(database)) as serving,
        callers(serving.address) as (caller,),
        callers(serving.address, sizes.watcher_processes) as watchers,
    ):
        await caller.ask("save", agents=agents)
        await wait_for_watches(serving, 0)
        before = resident_bytes(serving)
        async with watches(serving, watchers, many, sizes.streams_per_channel):
            note(figures, IDLE, bytes=(resident_bytes(serving) - before) / sizes.streams)
        for number in range(sizes.stream_slices):
            # Both get the same events: all over one stream, or each over the one stream that wants it.
            requests: Sequence[tuple[str, list[dict[str, Any]], int]] = (
                (ONE, [{}], 1),
                (MANY, many, len(watchers)),
            )
            for name, wanted, processes in requests[:: 1 if number % 2 else -1]:
                async with watches(serving, watchers[:processes], wanted, sizes.streams_per_channel):
                    found = await restore(
                        caller, watchers[:processes], agents, sizes.stream_events, sizes.events_per_second, number
                    )
                note(
                    figures,
                    name,
                    p50=p50(found.sent),
                    p99=p99(found.sent),
                    rate=(len(found.sent) - 1) / found.seconds,
                )
    return figures
