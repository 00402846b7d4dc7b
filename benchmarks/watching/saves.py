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
from benchmarks.servers import Server
from benchmarks.watching.rig import Figures, busy_seconds, note
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
    """Return for each variant what `save` measures, by turn."""
    figures = Figures()
    async with AsyncExitStack() as stack:
        savers: dict[str, tuple[Client, Server]] = {}
        for name, requests in variants(sizes).items():
            place = await stack.enter_async_context(watched(cluster, template, requests, sizes))
            (saver,) = await stack.enter_async_context(clients(STORE))
            await saver.ask("open", access={"dsn": place.dsn, "target": place.serving.address})
            savers[name] = saver, place.serving
        for number in range(sizes.save_slices):
            order = list(savers)
            random.Random(number).shuffle(order)  # noqa: S311 - an order, no secret
            for name in order:
                note(figures, name, **await save(*savers[name], CASE, work, f".{number}"))
        for saver, _ in savers.values():
            await saver.ask("close")
    return figures


async def save(saver: Client, serving: Server, case: Case, work: dict[str, Any], suffix: str) -> dict[str, float]:
    """Save a case's conversations under names of their own.

    Returns saves a second, and the seconds that the server's process was busy for each: these depend less on what else
    the machine does.
    """
    await saver.ask("take", work=work, suffix=suffix, part=0, parts=1)
    before = busy_seconds(serving)
    saved = await saver.ask("save", in_flight=case.in_flight)
    count = len(saved["latencies"])
    return {"rate": count / (saved["ended"] - saved["began"]), "busy": (busy_seconds(serving) - before) / count}
