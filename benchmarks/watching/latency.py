"""`watch:latency`: from a restore on one server to a watcher of another one, with notifications and without."""

from typing import NamedTuple

from benchmarks.database import Cluster
from benchmarks.processes import echo
from benchmarks.servers import SERVICE, server
from benchmarks.watching import launcher
from benchmarks.watching.rig import Figures, callers, note, p50, p99, restore, watches
from benchmarks.watching.sizes import Sizes

AGENTS = tuple(f"agent-{number}" for number in range(20))


class Variant(NamedTuple):
    """How the watcher's server learns of events."""

    flags: tuple[str, ...]
    run: tuple[str, ...]
    per_second: float
    """Restores: fewer, where an event takes long, than would all come together."""


HEARING = "NOTIFY"
VARIANTS = {
    HEARING: Variant((), (SERVICE,), 50),
    "no NOTIFY, --event-poll-interval=0.02": Variant(
        ("--event-poll-interval=0.02",), (launcher.MODULE, launcher.DEAF), 50
    ),
    "no NOTIFY, default poll": Variant((), (launcher.MODULE, launcher.DEAF), 30),
}


async def measure(cluster: Cluster, template: str, sizes: Sizes) -> Figures:
    """Return latencies of each variant by turn, and those of what they are made of."""
    database = await cluster.create("run", template)
    dsn, figures = cluster.url(database), Figures()
    async with server(dsn) as here, callers(here.address) as (caller,), echo() as echoing:
        await caller.ask("save", agents=AGENTS)
        for name, variant in VARIANTS.items():
            async with (
                server(dsn, *variant.flags, run=variant.run) as there,
                callers(there.address) as watchers,
                watches(there, watchers, [{}], 1),
            ):
                for number in range(sizes.slices):
                    found = await restore(caller, watchers, AGENTS, sizes.events, variant.per_second, seed=number)
                    parts = await caller.ask("floor", dsn=dsn, echo=echoing, count=sizes.events)
                    for part, latencies in (found._asdict() | parts).items():
                        if part != "seconds":
                            note(figures, name, **{f"{part} p50": p50(latencies), f"{part} p99": p99(latencies)})
    await cluster.drop(database)
    return figures
