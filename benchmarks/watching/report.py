"""The tables of the cases of watching: medians of all turns, and ratios within the same turn."""

from collections.abc import Callable, Sequence

from benchmarks.results import Watching
from benchmarks.tables import Table, spread
from benchmarks.watching import cost, saves, streams
from benchmarks.watching.sizes import COST, LATENCY, SAVES, STREAMS

Rounds = Sequence[Watching]
BUSY = "server's processor, µs a save"


def heading(watching: Watching) -> str:
    """Tell what was done in a round."""
    sizes = watching.sizes
    told = {
        LATENCY: "{slices} turns of {events} restores",
        STREAMS: "{streams} streams, {stream_slices} turns of {stream_events} restores, {events_per_second} a second",
        SAVES: "{streams} streams, {save_slices} turns",
        COST: "{cost_slices} turns",
    }
    return f"{watching.case}: {told[watching.case].format(**sizes)}"


def table(rounds: Rounds) -> Table:
    """Return the table of a case."""
    tables: dict[str, Callable[[Rounds], Table]] = {LATENCY: _latency, STREAMS: _streams, SAVES: _saves, COST: _cost}
    return tables[rounds[0].case](rounds)


def line(watching: Watching) -> str:
    """Tell a round in a line: the last column of the table."""
    head, *rows = table([watching])
    cells = "; ".join(f"{row[0]} {row[-1]}" for row in rows)
    return f"round {watching.round}  {watching.case:24} {head[-1]}: {cells}"


def _latency(rounds: Rounds) -> Table:
    def row(name: str) -> tuple[str, ...]:
        def ratio(measure: str, rank: str) -> str:
            measured = _values(rounds, name, f"{measure} {rank}")
            parts = [_values(rounds, name, f"{part} {rank}") for part in ("notify", "echo")]
            return spread([one / sum(two) for one, *two in zip(measured, *parts, strict=True)], "{:.2f}")

        def times(measure: str) -> tuple[str, ...]:
            return tuple(_milliseconds(rounds, name, f"{measure} {rank}") for rank in ("p50", "p99"))

        return (
            name,
            *times("sent"),
            *times("answered"),
            ratio("answered", "p50"),
            ratio("sent", "p99"),
            ratio("sent", "p50"),
        )

    first, *others = rounds[0].figures
    floor = [
        (f"{title} alone", *(_milliseconds(rounds, first, f"{part} {rank}") for rank in ("p50", "p99")), *["–"] * 5)
        for part, title in (("notify", "NOTIFY"), ("echo", "stream echo"))
    ]
    return [
        (
            "the watcher's server", "from send p50 ms", "p99 ms", "from answer p50 ms", "p99 ms",
            "from answer p50 × (NOTIFY + echo)", "from send p99 × (NOTIFY + echo)", "from send p50 × (NOTIFY + echo)",
        ),
        *map(row, (first, *others)),
        *floor,
    ]  # fmt: skip


def _streams(rounds: Rounds) -> Table:
    names = (streams.ONE, streams.MANY)
    count = f"{rounds[0].sizes['streams']:,}"

    def row(label: str, name: str) -> tuple[str, ...]:
        def ratio(measure: str) -> str:
            return _ratio(rounds, name, streams.ONE, measure)

        return (
            label,
            spread(_values(rounds, name, "rate"), "{:.0f}"),
            _milliseconds(rounds, name, "p50"),
            _milliseconds(rounds, name, "p99"),
            ratio("p50"),
            ratio("p99"),
        )

    memory = spread([value / 1024 for value in _values(rounds, streams.IDLE, "bytes")], "{:.1f}")
    begun = spread(_values(rounds, streams.IDLE, "seconds"), "{:.2f}")
    return [
        ("streams", "events/s", "p50 ms", "p99 ms", "p50 × one stream", "p99 × one stream"),
        row("one, of all events", names[0]),
        row(f"{count}, each of one agent", names[1]),
        (f"{count} to which nothing happens: KiB of the server each", *["–"] * 4, memory),
        (f"{count} to begin, s", *["–"] * 4, begun),
    ]


def _saves(rounds: Rounds) -> Table:
    rows = [
        (
            name,
            spread(_values(rounds, name, "rate"), "{:.0f}"),
            _microseconds(rounds, name),
            _ratio(rounds, name, saves.ALONE, "rate"),
        )
        for name in rounds[0].figures
    ]
    rows.sort(key=lambda row: row[0] != saves.ALONE)
    return [("meanwhile", "saves/s", BUSY, f"saves/s × {saves.ALONE}"), *rows]


def _cost(rounds: Rounds) -> Table:
    works = dict.fromkeys(name.removesuffix(f" {cost.WITH}") for name in rounds[0].figures if name.endswith(cost.WITH))

    def row(work: str) -> tuple[str, ...]:
        names = f"{work} {cost.WITH}", f"{work} {cost.WITHOUT}"
        rates = (spread(_values(rounds, name, "rate"), "{:.0f}") for name in names)
        busy = (_microseconds(rounds, name) for name in names)
        return (work, *rates, *busy, _ratio(rounds, *names, "rate"))

    ways = cost.WITH, cost.WITHOUT
    head = (*(f"saves/s {way}" for way in ways), *(f"{BUSY} {way}" for way in ways))
    return [("saved", *head, "saves/s with by without"), *map(row, works)]


def _values(rounds: Rounds, variant: str, measure: str) -> list[float]:
    """Return all that was measured, turn by turn; not of rounds that lack it."""
    return [value for one in rounds for value in one.figures.get(variant, {}).get(measure, ())]


def _ratio(rounds: Rounds, variant: str, reference: str, measure: str) -> str:
    pairs = zip(_values(rounds, variant, measure), _values(rounds, reference, measure), strict=True)
    return spread([one / other for one, other in pairs], "{:.2f}")


def _milliseconds(rounds: Rounds, variant: str, measure: str) -> str:
    return spread([1000 * seconds for seconds in _values(rounds, variant, measure)], "{:.2f}")


def _microseconds(rounds: Rounds, variant: str) -> str:
    return spread([1e6 * seconds for seconds in _values(rounds, variant, "busy")], "{:.0f}")
