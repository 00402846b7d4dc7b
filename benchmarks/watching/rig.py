"""What the cases have in common: processes that watch, one that restores, and what a server tells of itself."""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from statistics import median, quantiles
from typing import Any, NamedTuple

import psutil

from benchmarks.processes import Client, ProcessFailed, workers
from benchmarks.servers import Server

WATCHES = "session_service_watches"
"""The metric: how many watches a server has."""
PATIENCE = 60.0
LOOK_EVERY = 0.05
"""Seconds between two looks at a metric."""
Figures = dict[str, dict[str, list[float]]]
"""Of each variant each measure; what has the same place in a list was measured in the same turn."""


class Latencies(NamedTuple):
    """Of events, in seconds."""

    sent: list[float]
    """From the caller's send to the watcher's receipt."""
    answered: list[float]
    """From the caller's answer; less than 0 if the watcher was sooner."""
    seconds: float
    """From the first send to the last one."""


@asynccontextmanager
async def callers(target: str, count: int = 1) -> AsyncIterator[Sequence[Client]]:
    """Run client processes that watch or restore."""
    async with workers("benchmarks.watching.worker", count) as started:
        await asyncio.gather(*(one.ask("make", target=target) for one in started))
        yield started
        await asyncio.gather(*(one.ask("close") for one in started))


@asynccontextmanager
async def watches(
    server: Server, watchers: Sequence[Client], requests: Sequence[dict[str, Any]], streams_per_channel: int
) -> AsyncIterator[None]:
    """Have the watchers share these watches, all of which have begun, on a server that has no others."""
    shares = [list(requests[place :: len(watchers)]) for place in range(len(watchers))]
    await asyncio.gather(
        *(
            watcher.ask("watch", requests=share, streams_per_channel=streams_per_channel)
            for watcher, share in zip(watchers, shares, strict=True)
        )
    )
    await wait_for_watches(server, len(requests))
    yield
    await asyncio.gather(*(watcher.ask("stop_watching") for watcher in watchers))
    await wait_for_watches(server, 0)


async def restore(
    caller: Client, watchers: Sequence[Client], agents: Sequence[str], count: int, per_second: float, seed: int
) -> Latencies:
    """Restore, and return how long each event took to come to the one watcher that wants it."""
    calls = (await caller.ask("restore", agents=agents, count=count, per_second=per_second, seed=seed))["calls"]
    receipts = await all_received(watchers, count)
    sent = [receipts[request_id] - begin for request_id, (begin, _) in calls.items()]
    answered = [receipts[request_id] - end for request_id, (_, end) in calls.items()]
    begins = [begin for begin, _ in calls.values()]
    return Latencies(sent, answered, max(begins) - min(begins))


async def all_received(watchers: Sequence[Client], count: int) -> dict[str, float]:
    """Wait until so many events have come, and return when each came, by the request's id; raises ProcessFailed."""
    receipts: dict[str, float] = {}
    begin = time.monotonic()
    while len(receipts) < count:
        if time.monotonic() - begin > PATIENCE:
            raise ProcessFailed(f"{count - len(receipts)} of {count} events did not come")
        for told in await asyncio.gather(*(watcher.ask("received") for watcher in watchers)):
            receipts |= told["receipts"]
        await asyncio.sleep(LOOK_EVERY)
    return receipts


def note(figures: Figures, variant: str, **measured: float) -> None:
    """Add what one turn of a variant measured."""
    for measure, value in measured.items():
        figures.setdefault(variant, {}).setdefault(measure, []).append(value)


def p50(found: Sequence[float]) -> float:
    """Return the median."""
    return median(found)


def p99(found: Sequence[float]) -> float:
    """Return what 99 of 100 are less than."""
    return quantiles(found, n=100, method="inclusive")[98]


def resident_bytes(server: Server) -> int:
    """Return the memory of a server's process."""
    return int(psutil.Process(server.pid).memory_info().rss)


def busy_seconds(server: Server) -> float:
    """Return for how long a server's process has used a processor."""
    used = psutil.Process(server.pid).cpu_times()
    return float(used.user + used.system)


async def wait_for_watches(server: Server, count: int) -> None:
    """Wait until a server has so many watches, as its metrics tell."""
    async with asyncio.timeout(PATIENCE):
        while await metric(server, WATCHES) != count:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(LOOK_EVERY)


async def metric(server: Server, name: str) -> float:
    """Return a metric without labels."""
    text = await asyncio.to_thread(_scrape, server.ops_address)
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(name + " "))


def _scrape(address: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
