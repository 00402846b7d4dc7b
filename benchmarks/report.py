"""Tables from measurements: medians with their spread, and ratios within the same round."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks import pack_report, read_report, stores
from benchmarks.processor_time import PARTS
from benchmarks.results import Result, Run
from benchmarks.tables import NONE, Table, markdown, plain, spread
from benchmarks.watching import report as watch_report

REFERENCE = "floor"
OURS = "ours"
"""Sends new messages only; other ways to save the same are compared with it."""
Figure = Callable[[Result], float | None]
COLUMNS = (
    "store", "saves/s", "× floor", "× fastest peer", "× ours", "p50 ms", "p50 × floor", "p99 ms", "WAL × payload",
    "stored × payload", "of it empty", "stored × ours", "restore p50 ms", "p50 last/first", "WAL last/first",
    "longest transaction ms", *(f"{part} CPU µs" for part in PARTS),
)  # fmt: skip


def rate(result: Result) -> float:
    """Return saves per second."""
    return result.saves / result.seconds


def values(results: Sequence[Result], figure: Figure) -> list[float]:
    """Return a figure of each measurement that has it."""
    return [value for result in results if (value := figure(result)) is not None]


def ratios(results: Sequence[Result], reference: Sequence[Result], figure: Figure = rate) -> list[float]:
    """Return the figure's ratio to the reference of the same round, round by round.

    Paired, because the machine is not equally fast at all times.
    """
    by_round = {result.round: figure(result) for result in reference}
    found = []
    for result in results:
        value, base = figure(result), by_round.get(result.round)
        if value is not None and base:
            found.append(value / base)
    return found


def ratios_to_fastest(results: Sequence[Result], peers: Sequence[Sequence[Result]]) -> list[float]:
    """Return saves per second by those of the fastest peer of the same round, for rounds that have every peer."""
    rounds = [{result.round: rate(result) for result in measured} for measured in peers if measured]
    return [
        rate(result) / max(peer[result.round] for peer in rounds)
        for result in results
        if rounds and all(result.round in peer for peer in rounds)
    ]


def of(run: Run, case: str, store: str) -> list[Result]:
    """Return a store's measurements in a case."""
    return [result for result in run.results if (result.case, result.store) == (case, store)]


def cases_of(run: Run) -> list[str]:
    """Return the cases in the order in which they were measured."""
    return list(dict.fromkeys(result.case for result in run.results))


def table(run: Run, case: str) -> Table:
    """Return a case's table: the columns' names, then a row per store; without columns that have no figure."""
    full = [COLUMNS, *_rows(run, case)]
    used = [index for index in range(len(COLUMNS)) if any(row[index] != NONE for row in full[1:])]
    return [tuple(row[index] for index in used) for row in full]


def _rows(run: Run, case: str) -> list[tuple[str, ...]]:
    return [(store, *_cells(run, case, store, results)) for store in run.stores if (results := of(run, case, store))]


def _cells(run: Run, case: str, store: str, results: Sequence[Result]) -> tuple[str, ...]:
    def own(form: str, figure: Figure) -> str:
        return spread(values(results, figure), form)

    def beside(form: str, other: str, figure: Figure) -> str:
        return spread(ratios(results, of(run, case, other), figure), form)

    return (
        own("{:.0f}", rate),
        beside("{:.2f}", REFERENCE, rate),
        _fastest(run, case, results) if store in stores.OURS else NONE,
        beside("{:.2f}", OURS, rate) if store in stores.OURS - {OURS} else NONE,
        own("{:.2f}", lambda result: 1000 * result.save_p50),
        beside("{:.2f}", REFERENCE, lambda result: result.save_p50),
        own("{:.1f}", lambda result: 1000 * result.save_p99),
        _wal(results),
        own("{:.2f}", lambda result: _part(result.stored_bytes, result)),
        own("{:.2f}", lambda result: _part(result.empty_bytes, result)),
        beside("{:.3f}", OURS, lambda result: result.stored_bytes) if store in stores.OURS - {OURS} else NONE,
        own("{:.2f}", lambda result: None if result.restore_p50 is None else 1000 * result.restore_p50),
        own("{:.2f}", lambda result: result.p50_growth),
        own("{:.2f}", lambda result: result.wal_growth),
        own("{:.1f}", lambda result: _milliseconds(result.longest_transaction)),
        *(own("{:.0f}", partial(_processor_time, part)) for part in PARTS),
    )


def _fastest(run: Run, case: str, results: Sequence[Result]) -> str:
    peers = [of(run, case, peer) for peer in run.stores if peer in stores.PEERS]
    return spread(ratios_to_fastest(results, peers), "{:.2f}")


def _wal(results: Sequence[Result]) -> str:
    steady = spread(values(results, lambda result: _part(result.wal_bytes, result)), "{:.2f}")
    first = values(results, lambda result: _part(result.wal_after_checkpoint, result))
    return f"{steady}; after a checkpoint {spread(first, '{:.2f}')}" if first else steady


def _processor_time(part: str, result: Result) -> float | None:
    seconds = result.processor_seconds.get(part)
    return None if seconds is None else 1e6 * seconds / result.saves


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def _part(size: int | None, result: Result) -> float | None:
    return None if size is None else size / result.payload_bytes


def sections(run: Run) -> list[tuple[str, list[Table]]]:
    """Return headings with their tables."""
    found = [(_heading(run, case), [table(run, case)]) for case in cases_of(run)]
    if run.reads:
        newest = run.reads[-1]
        tables = [read_report.times(run.reads), read_report.scans(newest)]
        found.append((f"{read_report.heading(newest)}{_rounds(run, newest.case)}", tables))
    for case in dict.fromkeys(packing.case for packing in run.packings):
        packings = [packing for packing in run.packings if packing.case == case]
        tables = [pack_report.summary(packings), pack_report.parts(packings[-1])]
        found.append((f"{pack_report.heading(packings[-1])}{_rounds(run, case)}", tables))
    for case in dict.fromkeys(watching.case for watching in run.watchings):
        watchings = [watching for watching in run.watchings if watching.case == case]
        found.append((f"{watch_report.heading(watchings[-1])}{_rounds(run, case)}", [watch_report.table(watchings)]))
    return found


def text(run: Run) -> str:
    """Return the tables for a terminal."""
    parts = [_facts(run, "{}: {}")]
    for heading, tables in sections(run):
        first, *others = map(plain, tables)
        parts += [f"{heading}\n{first}", *others]
    return "\n\n".join(parts)


def document(run: Run) -> str:
    """Return the tables as Markdown."""
    described = [
        (f"{name}: {one['title']}", one["version"], one["setup"], one["keeps"]) for name, one in run.stores.items()
    ]
    parts = [
        "# Results of the benchmarks",
        "Written by `python -m benchmarks --publish`; nothing here is written by hand."
        " What the columns mean and how it is measured: [benchmarks.md](benchmarks.md).",
        _facts(run, "- {}: {}"),
        "## Stores",
        markdown([("store", "version", "how it is used", "what it keeps"), *described]),
    ]
    for heading, tables in sections(run):
        parts += [f"## {heading}", *map(markdown, tables)]
    return "\n\n".join(parts) + "\n"


def _heading(run: Run, case: str) -> str:
    first = next(result for result in run.results if result.case == case)
    counts = Counter(result.store for result in run.results if result.case == case).values()
    # Some stores may have been measured again.
    rounds = _rounds(run, case) if len({*counts}) == 1 else f"; {min(counts)} to {max(counts)} rounds of each store"
    return f"{case}: {first.saves} saves, {first.payload_bytes / 1e6:.1f} MB{rounds}"


def _rounds(run: Run, case: str) -> str:
    count = run.rounds(case)
    return f"; {count} rounds" if count > 1 else "; 1 round"


def _facts(run: Run, form: str) -> str:
    facts = {
        "machine": ", ".join(f"{name} {value}" for name, value in run.machine.items()),
        "PostgreSQL": ", ".join(f"{name} {value}" for name, value in run.postgres.items()),
        "figures": "the median of the rounds, and (least–most)",
        "ratios": "to another store's figure of the same round",
    }
    if limit := run.options["limit"]:
        facts["not everything"] = f"only the first {limit} conversations of each file"
    facts |= {f"not measured: {store}": why for store, why in run.skipped.items()}
    return "\n".join(form.format(name, value) for name, value in facts.items())
