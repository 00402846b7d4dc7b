"""The tables of the case `reads`: times beside what they are made of, and what PostgreSQL looked at."""

from collections.abc import Sequence

from benchmarks.results import Reading
from benchmarks.tables import NONE, Table, spread

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

    def milliseconds(name: str) -> str:
        return spread([1000 * reading.seconds[name] for reading in readings], "{:.2f}")

    def ratio(name: str, parts: Sequence[str]) -> str:
        return spread([one.seconds[name] / sum(one.seconds[part] for part in parts) for one in readings], "{:.2f}")

    limit = readings[0].message_limit
    rows = [("", "median over the rounds")]
    rows += [(f"{NAMES[name]}, ms", milliseconds(name)) for name in NAMES]
    for name, parts in PARTS.items():
        for chosen in (parts, tuple(ONE_WAY.get(part, part) for part in parts)):
            label = " + ".join(NAMES[part] for part in chosen)
            rows.append((f"{NAMES[name]} by {label}", ratio(name, chosen)))
    return [
        *rows,
        (f"RestoreSession of {readings[0].long_messages} messages, ms", milliseconds("long")),
        (f"the same, message_limit={limit}, ms", milliseconds("limited")),
        (f"message_limit={limit} by all messages", ratio("limited", ("long",))),
    ]


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
