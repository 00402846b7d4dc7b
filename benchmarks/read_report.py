"""The tables of the case `reads`: times beside what they are made of, and what PostgreSQL looked at."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.results import Reading
from benchmarks.tables import NONE, Table, spread

Seconds = Mapping[str, float]
PARTS = {
    "get": ("select", "echo"),
    "restore": ("select", "echo", "commit"),
}
"""What a read cannot do without: the bytes from PostgreSQL, the bytes over gRPC, and of a restore its event."""
ONE_WAY = {"echo": "again"}
"""Harder to reach: an echo carries the bytes there and back, a read only back."""
NAMES = {
    "select": "SELECT",
    "echo": "echo",
    "again": "one-way echo",
    "commit": "commit",
    "get": "GetRevision",
    "restore": "RestoreSession",
}


def heading(reading: Reading) -> str:
    """Tell what was read."""
    return (
        f"{reading.case}: {reading.messages} messages, {reading.payload_bytes / 1e6:.1f} MB,"
        f" {reading.repetitions} times; {reading.long_messages} messages, {reading.long_repetitions} times"
    )


def times(readings: Sequence[Reading]) -> Table:
    """Return medians over the rounds, and ratios within the same round."""
    seconds, limit = [reading.seconds for reading in readings], readings[0].message_limit
    # Files of earlier programs have none.
    packed = [reading.packed_seconds for reading in readings if reading.packed_seconds]
    return [
        ("", "median over the rounds"),
        *((f"{NAMES[name]}, ms", _milliseconds(seconds, name)) for name in NAMES),
        *((f"{NAMES[name]} packed, ms", _milliseconds(packed, name)) for name in PARTS if packed),
        *_by_parts(seconds, ""),
        *(_by_parts(packed, " packed") if packed else ()),
        (f"RestoreSession of {readings[0].long_messages} messages, ms", _milliseconds(seconds, "long")),
        (f"the same, message_limit={limit}, ms", _milliseconds(seconds, "limited")),
        (f"message_limit={limit} by all messages", _ratio(seconds, "limited", ("long",))),
    ]


def _by_parts(seconds: Sequence[Seconds], kind: str) -> Iterator[tuple[str, str]]:
    for name, parts in PARTS.items():
        for chosen in (parts, tuple(ONE_WAY.get(part, part) for part in parts)):
            label = " + ".join(NAMES[part] for part in chosen)
            yield f"{NAMES[name]}{kind} by {label}", _ratio(seconds, name, chosen)


def _milliseconds(seconds: Sequence[Seconds], name: str) -> str:
    return spread([1000 * one[name] for one in seconds], "{:.2f}")


def _ratio(seconds: Sequence[Seconds], name: str, parts: Sequence[str]) -> str:
    return spread([one[name] / sum(one[part] for part in parts) for one in seconds], "{:.2f}")


def scans(reading: Reading) -> Table:
    """Return rows and buffers of the statement, with and without a limit, as EXPLAIN (ANALYZE, BUFFERS) told."""
    long, limited = reading.plans["long"], reading.plans["limited"]
    limit = f"message_limit={reading.message_limit}"
    return [
        ("read from", f"{limit}: rows", "buffers", "all messages: rows", "buffers"),
        *((name, *_cells(limited.get(name)), *_cells(long.get(name))) for name in dict.fromkeys([*limited, *long])),
    ]


def _cells(found: Sequence[int] | None) -> tuple[str, str]:
    return (str(found[0]), str(found[1])) if found else (NONE, NONE)
