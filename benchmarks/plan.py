"""The run: rounds over cases over stores, so that stores take turns."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import pack_report, stores
from benchmarks.cases import ALONE, LONG, READS, Case, ReadSizes, work_of
from benchmarks.database import Cluster
from benchmarks.measurement import READER, Laboratory
from benchmarks.processes import ProcessFailed
from benchmarks.results import Reading, Result, Run, machine
from benchmarks.watching import measurement as watching
from benchmarks.watching import report as watch_report
from benchmarks.watching.sizes import Sizes as WatchSizes


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    stores: Sequence[str]
    cases: Sequence[Case]
    rounds: int
    corpus: Path | None = None
    limit: int = 0
    """Conversations of each file; 0: all."""
    synthetic_messages: int = 4000
    prefill: int = 300_000
    """Saves in the tables of prefilled cases."""
    prefill_stores: Sequence[str] = ()
    """Prefilled cases measure these: it takes a store long to get there by its own means."""
    reads: ReadSizes = field(default_factory=ReadSizes)
    watching: WatchSizes = field(default_factory=WatchSizes)

    def work(self, case: Case) -> dict[str, Any]:
        """Return what a worker's `take` needs; raises ValueError."""
        return work_of(case, self.corpus, self.limit, self.synthetic_messages)

    def stores_of(self, case: Case, ready: Sequence[str]) -> list[str]:
        """Return who takes part in a case that saves."""
        if case.work in ALONE or case.packed:
            return []
        left_out = stores.WHOLE_STATE if case.work == LONG else frozenset[str]()
        chosen = self.prefill_stores if case.prefilled else ready
        return [store for store in ready if store in chosen and store not in left_out]

    @property
    def options(self) -> dict[str, Any]:
        """Return what results depend on, beside the case and the store."""
        return {name: getattr(self, name) for name in ("limit", "synthetic_messages", "prefill")}


async def carry_out(
    plan: Plan, cluster: Cluster, results: Path, tell: Callable[[str], None], *, append: bool = False
) -> Run:
    """Measure everything; what is measured so far is in `results` after each measurement.

    With `append`, what `results` holds already stays, and rounds are added.
    """
    works = {case: plan.work(case) for case in plan.cases}
    run = Run(machine=machine(), postgres=await cluster.settings(), options=plan.options)
    if append:
        run = run.continued(results)
    before = {case: run.rounds(str(case)) for case in plan.cases}
    laboratory = Laboratory(cluster)
    ready = await _prepare(plan, laboratory, run, tell)
    await _prefill(plan, laboratory, ready, tell)
    for round_ in range(1, plan.rounds + 1):
        for case, work in works.items():
            number = before[case] + round_
            for store in plan.stores_of(case, ready):
                result = await laboratory.measure(store, case, work, number)
                run.results.append(result)
                run.write(results)
                tell(_line(result))
            if (case.work in ALONE or case.packed) and READER in ready:
                told = await _measure_alone(plan, laboratory, run, case, number)
                run.write(results)
                tell(told)
    for database in (*laboratory.templates.values(), *laboratory.prefilled.values()):
        await cluster.drop(database)
    return run


async def _measure_alone(plan: Plan, laboratory: Laboratory, run: Run, case: Case, number: int) -> str:
    """Measure a case of this service only, add it to the run, and return a line that tells of it."""
    if case.work == READS:
        run.reads.append(await laboratory.read(case, plan.reads, number))
        return _reading_line(run.reads[-1])
    if case.packed:
        run.packings.append(await laboratory.pack(case, plan.work(case), number))
        return pack_report.line(run.packings[-1])
    template = laboratory.templates[READER]
    run.watchings.append(await watching.measure(laboratory.cluster, template, case, plan.watching, plan.work, number))
    return watch_report.line(run.watchings[-1])


async def _prepare(plan: Plan, laboratory: Laboratory, run: Run, tell: Callable[[str], None]) -> list[str]:
    """Return the stores that can be measured; why others cannot is told and kept."""
    ready = []
    for store in plan.stores:
        try:
            run.describe(store, await laboratory.prepare(store))
        except ProcessFailed as failed:
            run.skipped[store] = str(failed).splitlines()[0]
            tell(f"{store} is left out: {run.skipped[store]}")
        else:
            ready.append(store)
            tell(f"{store}: {run.stores[store]['version']}")
    return ready


async def _prefill(plan: Plan, laboratory: Laboratory, ready: Sequence[str], tell: Callable[[str], None]) -> None:
    cases = [case for case in plan.cases if case.prefilled]
    if not cases:
        return
    first = {stores.tables_of(store): store for store in reversed(plan.stores_of(cases[0], ready))}
    for store in reversed(first.values()):
        begin = time.monotonic()
        await laboratory.prefill(store, plan.work(cases[-1]), plan.prefill)
        tell(f"{store}: {plan.prefill} saves before the run, {time.monotonic() - begin:.0f} s")


def default_prefill_stores(chosen: Sequence[str]) -> list[str]:
    """Return the stores of which prefilled cases are measured unless told otherwise."""
    return [store for store in chosen if store == "floor" or store in stores.OURS]


def _line(result: Result) -> str:
    return (
        f"round {result.round}  {result.case:24} {result.store:16}"
        f"{result.saves / result.seconds:8.0f}/s  p50 {1000 * result.save_p50:7.2f} ms"
        f"  WAL {result.wal_bytes / result.payload_bytes:6.2f} ×  {result.messages_compared} messages equal"
    )


def _reading_line(reading: Reading) -> str:
    found = reading.seconds | {f"packed {name}": reading.packed_seconds[name] for name in ("get", "restore")}
    times = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in found.items())
    return f"round {reading.round}  {reading.case:24} {times}"
