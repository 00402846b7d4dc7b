"""The tables of a packed case: what is stored before and after, and in which table."""

from collections.abc import Callable, Mapping, Sequence

from benchmarks.results import Packing
from benchmarks.tables import Table, spread

Sizes = Mapping[str, Sequence[int]]


def heading(packing: Packing) -> str:
    """Tell what was saved."""
    return f"{packing.case}: {packing.waves} waves, {packing.saves} saves, {packing.payload_bytes / 1e6:.1f} MB"


def line(packing: Packing) -> str:
    """Tell one measurement in a line."""
    return (
        f"round {packing.round}  {packing.case:24}"
        f" stored {stored(packing):.2f} × packed, {before(packing):.2f} × before;"
        f" {packing.revisions_compared} revisions equal"
    )


def stored(packing: Packing) -> float:
    """Return what is stored by the conversations' bytes."""
    return _sum(packing.packed) / packing.payload_bytes


def before(packing: Packing) -> float:
    """Return the same of the first wave, before it was packed."""
    return _sum(packing.unpacked) / packing.first_payload_bytes


def summary(packings: Sequence[Packing]) -> Table:
    """Return medians over the rounds."""

    def row(name: str, form: str, figure: Callable[[Packing], float]) -> tuple[str, str]:
        return name, spread([figure(one) for one in packings], form)

    return [
        ("", "median over the rounds"),
        row("stored × payload after the first wave, before packing", "{:.2f}", before),
        row("stored × payload after the last wave, packed", "{:.2f}", stored),
        row("WAL × payload of saving", "{:.2f}", lambda one: one.saving_wal_bytes / one.payload_bytes),
        row("WAL × payload of packing", "{:.2f}", lambda one: one.packing_wal_bytes / one.payload_bytes),
        row("packing, µs a message", "{:.0f}", lambda one: 1e6 * one.packing_seconds / one.packed_messages),
        row("revisions restored and compared", "{:.0f}", lambda one: one.revisions_compared),
    ]


def parts(packing: Packing) -> Table:
    """Return where the bytes are, by payload: rows, TOAST and indexes of each table."""

    def cells(sizes: Sequence[int], payload: int) -> list[str]:
        return [f"{size / payload:.3f}" for size in (*sizes, sum(sizes))]

    head = (
        "× payload",
        *(f"{when}: {part}" for when in ("before", "packed") for part in ("rows", "TOAST", "indexes", "all")),
    )
    names = [name for name, sizes in packing.packed.items() if sum(sizes) > packing.payload_bytes / 2000]
    nothing = (0, 0, 0)
    return [
        head,
        *(
            (
                name,
                *cells(packing.unpacked.get(name, nothing), packing.first_payload_bytes),
                *cells(packing.packed[name], packing.payload_bytes),
            )
            for name in names
        ),
    ]


def _sum(sizes: Sizes) -> int:
    return sum(map(sum, sizes.values()))
