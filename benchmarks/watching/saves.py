"""`watch:saves`: what those pay who save, on a server that others watch."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from agent_sessions.v1 import session_pb2

from benchmarks.cases import SYNTHETIC, Case
from benchmarks.database import Cluster
from benchmarks.processes import Client, clients
from benchmarks.servers import server
from benchmarks.watching.rig import Figures, callers, note, watches
from benchmarks.watching.sizes import Sizes
from benchmarks.watching.streams import agents_of

CASE = Case(SYNTHETIC, 16)
STORE = "ours"
ALONE = "nobody watches"
SAVED = session_pb2.EVENT_TYPE_SAVED


def variants(sizes: Sizes) -> Mapping[str, Sequence[dict[str, Any]]]:
    """Return what is watched meanwhile."""
    agents = agents_of(sizes)
    count = f"{len(agents):,}"
    return {
        ALONE: [],
        f"{count} watch RESTORED of other agents": [{"agent_id": agent} for agent in agents],
        f"{count} watch SAVED of other agents": [{"agent_id": agent, "types": [SAVED]} for agent in agents],
        "one watches all SAVED": [{"types": [SAVED]}],
    }


async def measure(cluster: Cluster, database: str, sizes: Sizes, work: dict[str, Any]) -> Figures:
    """Return saves a second of each variant, by turn."""
    dsn, figures = cluster.url(database), Figures()
    async with server(dsn) as serving, clients(STORE) as (saver,):
        await saver.ask("open", access={"dsn": dsn, "target": serving.address})
        async with callers(serving.address, sizes.watcher_processes) as watchers:
            for number in range(sizes.save_slices):
                order = list(variants(sizes).items())
                random.Random(number).shuffle(order)  # noqa: S311 - an order, no secret
                for name, requests in order:
                    chosen = watchers if len(requests) > 1 else watchers[: len(requests)]
                    async with watches(serving, chosen, requests, sizes.streams_per_channel):
                        note(figures, name, rate=await rate(saver, CASE, work, f".{number}.{name}"))
        await saver.ask("close")
    return figures


async def rate(saver: Client, case: Case, work: dict[str, Any], suffix: str) -> float:
    """Save a case's conversations under names of their own, and return saves a second."""
    await saver.ask("take", work=work, suffix=suffix, part=0, parts=1)
    saved = await saver.ask("save", in_flight=case.in_flight)
    return float(len(saved["latencies"]) / (saved["ended"] - saved["began"]))
