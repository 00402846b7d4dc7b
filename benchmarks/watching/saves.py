"""`watch:saves`: what those pay who save, on a server that others watch.

A server for each kind of watching, on a database of its own; all are up at the same time, and saved to in turns.
"""

import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from agent_sessions.v1 import session_pb2

from benchmarks.cases import SYNTHETIC, Case
from benchmarks.database import Cluster
from benchmarks.processes import Client, clients
from benchmarks.watching.rig import Figures, note
from benchmarks.watching.sizes import Sizes
from benchmarks.watching.watched import agents_of, watched

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


async def measure(cluster: Cluster, template: str, sizes: Sizes, work: dict[str, Any]) -> Figures:
    """Return saves a second of each variant, by turn."""
    figures = Figures()
    async with AsyncExitStack() as stack:
        savers: dict[str, Client] = {}
        for name, requests in variants(sizes).items():
            place = await stack.enter_async_context(watched(cluster, template, requests, sizes))
            (savers[name],) = await stack.enter_async_context(clients(STORE))
            await savers[name].ask("open", access={"dsn": place.dsn, "target": place.serving.address})
        for number in range(sizes.save_slices):
            order = list(savers)
            random.Random(number).shuffle(order)  # noqa: S311 - an order, no secret
            for name in order:
                note(figures, name, rate=await rate(savers[name], CASE, work, f".{number}"))
        for saver in savers.values():
            await saver.ask("close")
    return figures


async def rate(saver: Client, case: Case, work: dict[str, Any], suffix: str) -> float:
    """Save a case's conversations under names of their own, and return saves a second."""
    await saver.ask("take", work=work, suffix=suffix, part=0, parts=1)
    saved = await saver.ask("save", in_flight=case.in_flight)
    return float(len(saved["latencies"]) / (saved["ended"] - saved["began"]))
