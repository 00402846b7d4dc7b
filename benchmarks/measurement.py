"""One measurement: a database of its own, client processes, and what they did to it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from statistics import median, quantiles
from typing import Any, NamedTuple

from benchmarks import stores
from benchmarks.cases import LONG, LONG_PARTS, WAVES, Case, ReadSizes
from benchmarks.database import Cluster
from benchmarks.processes import Client, clients, echo, pack, relay
from benchmarks.processor_time import CLIENT, POSTGRES, SERVER, Clocks
from benchmarks.results import Packing, Reading, Result
from benchmarks.servers import server

PREFILL_IN_FLIGHT = 64
READER = "ours"
"""Reads are the same, however the session was saved. And this is what is packed: the others save the same rows."""


@dataclass
class Pass:
    """One time through the conversations, or through a part of each."""

    seconds: float
    latencies: list[float]
    wal_bytes: int
    processor_seconds: dict[str, float]


class Running(NamedTuple):
    """The processes of a measurement, PostgreSQL's aside."""

    clients: Sequence[Client]
    server_pids: Sequence[int]
    """Empty if the clients connect to the database themselves."""


@dataclass
class Laboratory:
    """Where measurements are made. `templates` are databases with a store's tables, to be copied."""

    cluster: Cluster
    templates: dict[str, str] = field(default_factory=dict)
    prefilled: dict[str, str] = field(default_factory=dict)
    """By `stores.tables_of`."""

    async def prepare(self, store: str) -> dict[str, str]:
        """Make the store's tables, and return its description."""
        async with clients(store) as (client,):
            description = await client.ask("describe")
            database = await self.cluster.create(f"empty_{store}")
            await client.ask("prepare", dsn=self.cluster.url(database))
        self.templates[store] = database
        return description

    async def prefill(self, store: str, work: dict[str, Any], revisions: int) -> None:
        """Make a database that holds at least so many saves, through the store itself."""
        database = await self.cluster.create(f"full_{stores.tables_of(store)}", self.templates[store])
        async with self._opened(store, database, 1) as running:
            (client,) = running.clients
            saved = copy = 0
            while saved < revisions:
                await client.ask("take", work=work, suffix=f".{copy}", part=0, parts=1)
                saved += len((await client.ask("save", in_flight=PREFILL_IN_FLIGHT))["latencies"])
                copy += 1
        await self.cluster.stored_bytes(database)
        self.prefilled[stores.tables_of(store)] = database

    async def measure(self, store: str, case: Case, work: dict[str, Any], round_: int) -> Result:
        """Measure one store in one case."""
        template = self.prefilled[stores.tables_of(store)] if case.prefilled else self.templates[store]
        database = await self.cluster.create("run", template)
        empty = None if case.prefilled else await self.cluster.stored_bytes(database)
        async with self._opened(store, database, case.processes) as running:
            started = running.clients
            first = await self._first_pass(running, case, work) if case.prefilled else None
            payload_bytes = await self._take(started, work, ".last")
            parts = LONG_PARTS if case.work == LONG else ((0, None),)
            async with self._watched(store) as longest:
                passes = [await self._save(running, case, *part) for part in parts]
            restored = await asyncio.gather(*(client.ask("restore") for client in started))
            await asyncio.gather(*(client.ask("close") for client in started))
        stored = None if case.prefilled else await self.cluster.stored_bytes(database)
        await self.cluster.drop(database)
        return Result(
            round=round_,
            store=store,
            case=str(case),
            **_saved(passes),
            payload_bytes=payload_bytes,
            wal_after_checkpoint=first.wal_bytes if first else None,
            stored_bytes=stored,
            empty_bytes=empty,
            restore_p50=median(latency for one in restored for latency in one["latencies"]),
            messages_compared=sum(one["messages"] for one in restored),
            longest_transaction=max(longest, default=None),
        )

    async def read(self, case: Case, sizes: ReadSizes, round_: int) -> Reading:
        """Measure reads, beside what they are made of."""
        database = await self.cluster.create("run", self.templates[READER])
        async with self._opened(READER, database, 1) as running, echo() as address:
            (client,) = running.clients
            dsn = self.cluster.url(database)
            measured = await client.ask("read", dsn=dsn, echo=address, sizes=asdict(sizes))
            await client.ask("close")
        await self.cluster.drop(database)
        return Reading(round=round_, case=str(case), **asdict(sizes), **measured)

    async def pack(self, case: Case, work: dict[str, Any], round_: int) -> Packing:
        """Measure what is stored after waves of saves, each packed before the next one."""
        database = await self.cluster.create("run", self.templates[READER])
        dsn, sums = self.cluster.url(database), Counter[str]()
        unpacked: dict[str, list[int]] = {}
        async with self._opened(READER, database, 1) as running:
            (client,) = running.clients
            for number in range(WAVES):
                taken = await self._take((client,), work, f".{number}")
                saved = await self._save(running, case)
                unpacked = unpacked or await self.cluster.stored_parts(database)
                before = await self.cluster.wal_position()
                told = await pack(dsn)
                sums.update(
                    payload=taken,
                    saves=len(saved.latencies),
                    saving_wal=saved.wal_bytes,
                    packing_wal=await self.cluster.wal_position() - before,
                    messages=told["messages"],
                    milliseconds=round(1000 * told["seconds"]),
                )
                packed = await self.cluster.stored_parts(database)  # VACUUM, which PostgreSQL does by itself elsewhere
            compared = 0
            for number in range(WAVES):
                await self._take((client,), work, f".{number}")
                compared += (await client.ask("compare"))["revisions"]
            await client.ask("close")
        await self.cluster.drop(database)
        return Packing(
            round=round_,
            case=str(case),
            waves=WAVES,
            saves=sums["saves"],
            payload_bytes=sums["payload"],
            first_payload_bytes=sums["payload"] // WAVES,
            unpacked=unpacked,
            packed=packed,
            saving_wal_bytes=sums["saving_wal"],
            packing_wal_bytes=sums["packing_wal"],
            packed_messages=sums["messages"],
            packing_seconds=sums["milliseconds"] / 1000,
            revisions_compared=compared,
        )

    async def _first_pass(self, running: Running, case: Case, work: dict[str, Any]) -> Pass:
        """Save everything once under other names, right after a checkpoint: pages' images are written now."""
        await self._take(running.clients, work, ".first")
        await self.cluster.checkpoint()
        return await self._save(running, case)

    @asynccontextmanager
    async def _watched(self, store: str) -> AsyncIterator[list[float]]:
        """Watch how old transactions get that hold back the log; only where something packs, for it costs a little."""
        ages: list[float] = []
        watching = asyncio.create_task(self.cluster.watch(ages)) if store in stores.PACKING else None
        try:
            yield ages
        finally:
            if watching:
                watching.cancel()
                await asyncio.wait({watching})

    @asynccontextmanager
    async def _opened(self, store: str, database: str, count: int) -> AsyncIterator[Running]:
        """Run client processes, connected to the database, and a server for stores that need one."""
        dsn = self.cluster.url(database)
        async with AsyncExitStack() as stack:
            target, server_pids = "", []
            if store in stores.OURS:
                started = await stack.enter_async_context(server(dsn, packing=store in stores.PACKING))
                target, server_pids = started.address, [started.pid]
            elif store in stores.RELAYS:
                target, pid = await stack.enter_async_context(relay(dsn))
                server_pids = [pid]
            connected = await _open(await stack.enter_async_context(clients(store, count)), dsn, target)
            yield Running(connected, server_pids)

    async def _take(self, started: Sequence[Client], work: dict[str, Any], suffix: str) -> int:
        """Let each client read its share of the conversations; returns the bytes of all."""
        parts = len(started)
        taken = await asyncio.gather(
            *(
                client.ask("take", work=work, suffix=suffix, part=part, parts=parts)
                for part, client in enumerate(started)
            )
        )
        return sum(one["payload_bytes"] for one in taken)

    async def _save(self, running: Running, case: Case, begin: int = 0, end: int | None = None) -> Pass:
        """Let all clients save at the same time."""
        in_flight = case.in_flight // len(running.clients)
        before, clocks = await self.cluster.wal_position(), Clocks(await self._pids(running))
        saved = await asyncio.gather(
            *(client.ask("save", in_flight=in_flight, begin=begin, end=end) for client in running.clients)
        )
        processor_seconds = clocks.since(await self._pids(running))
        return Pass(
            seconds=max(one["ended"] for one in saved) - min(one["began"] for one in saved),
            latencies=[latency for one in saved for latency in one["latencies"]],
            wal_bytes=await self.cluster.wal_position() - before,
            processor_seconds=processor_seconds,
        )

    async def _pids(self, running: Running) -> dict[str, Sequence[int]]:
        """Return the processes whose time counts, by part."""
        return {
            CLIENT: [client.pid for client in running.clients],
            SERVER: running.server_pids,
            POSTGRES: await self.cluster.pids(),
        }


async def _open(started: Sequence[Client], dsn: str, target: str) -> Sequence[Client]:
    access = {"dsn": dsn, "target": target}
    await asyncio.gather(*(client.ask("open", access=access) for client in started))
    return started


def _saved(passes: Sequence[Pass]) -> dict[str, Any]:
    """Return the fields of a Result that tell how saving went."""
    latencies = [latency for one in passes for latency in one.latencies]
    parts = passes[0].processor_seconds
    found = {
        "saves": len(latencies),
        "seconds": sum(one.seconds for one in passes),
        "save_p50": median(latencies),
        "save_p99": quantiles(latencies, n=100)[98],
        "wal_bytes": sum(one.wal_bytes for one in passes),
        "processor_seconds": {part: sum(one.processor_seconds[part] for one in passes) for part in parts},
    }
    if len(passes) > 1:
        found["p50_growth"] = median(passes[-1].latencies) / median(passes[0].latencies)
        found["wal_growth"] = passes[-1].wal_bytes / passes[0].wal_bytes
    return found
