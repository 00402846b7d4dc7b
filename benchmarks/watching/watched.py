"""A server on a database of its own that is being watched, ready to be measured."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from benchmarks.database import Cluster
from benchmarks.processes import Client
from benchmarks.servers import Server, server
from benchmarks.watching.rig import all_received, callers, resident_bytes, wait_for_watches, watches
from benchmarks.watching.sizes import Sizes

NO_BOOKMARKS = "--watch-bookmark-interval=3600"
"""Watches of a server that is not being measured just then would take time from the others."""
SETTLED = 2
"""Events that each watch gets before anything is measured: a watch that has just begun reads them from the log."""
_numbers = count()


@dataclass(frozen=True)
class Watched:
    """What runs."""

    dsn: str
    serving: Server
    caller: Client
    """Restores and saves."""
    watchers: Sequence[Client]
    bytes_of_a_watch: float
    """Memory of the server for each watch while nothing happened, connections included."""
    seconds_to_begin: float
    """Until all watches had got their first message."""


def agents_of(sizes: Sizes) -> list[str]:
    """Return the agents that are watched one by one."""
    return [f"watched-{number}" for number in range(sizes.streams)]


@asynccontextmanager
async def watched(
    cluster: Cluster, template: str, requests: Sequence[dict[str, Any]], sizes: Sizes
) -> AsyncIterator[Watched]:
    """Run it, with a watch for each of the requests; each of them is live."""
    database = await cluster.create(f"run_watched_{next(_numbers)}", template)
    dsn, agents = cluster.url(database), agents_of(sizes)
    processes = min(sizes.watcher_processes, len(requests))
    async with (
        server(dsn, NO_BOOKMARKS) as serving,
        callers(serving.address) as (caller,),
        callers(serving.address, processes) as watchers,
    ):
        await caller.ask("save", agents=agents)
        await wait_for_watches(serving, 0)
        before, begin = resident_bytes(serving), time.monotonic()
        async with watches(serving, watchers, requests, sizes.streams_per_channel):
            seconds = time.monotonic() - begin
            grown = resident_bytes(serving) - before
            for _ in range(SETTLED if requests else 0):
                await caller.ask("save", agents=agents)
                await caller.ask(
                    "restore", agents=agents, count=len(agents), per_second=sizes.events_per_second, seed=0
                )
                await all_received(watchers, len(agents))
            yield Watched(dsn, serving, caller, watchers, grown / max(1, len(requests)), seconds)
    await cluster.drop(database)
