"""Aligned columns that fit the terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TextIO

from agent_sessions.cli import terminal

_GAP = "  "
_NARROWEST = 8
"""Columns below which a cell is not cut to make the table fit."""

_NAME_WIDTH = 17
"""Columns of the longest name that `print_fields` is given."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, and whether its cells are aligned to the right, as numbers are."""

    title: str
    right: bool = False


class Table:
    """Prints rows as they come, page by page; a column only grows from one page to the next."""

    def __init__(self, stream: TextIO, *columns: Column) -> None:
        self._stream = stream
        self._columns = columns
        self._widths = [0] * len(columns)
        self._is_begun = False

    def add(self, rows: Iterable[Sequence[str]]) -> None:
        """Print a page of rows, the titles before the first."""
        safe = [[terminal.printable(cell) for cell in row] for row in rows]
        if not self._is_begun:
            safe.insert(0, [column.title for column in self._columns])
            self._is_begun = True
        self._widths = [max(old, *map(terminal.width, cells)) for old, *cells in zip(self._widths, *safe, strict=True)]
        widths = fitted(self._widths, terminal.columns(self._stream))
        for row in safe:
            print(self._line(row, widths), file=self._stream)

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = map(_aligned, row, widths, self._columns)
        return _GAP.join(cells).rstrip()


def fitted(widths: Sequence[int], room: int | None) -> list[int]:
    """Return the widths, the widest made narrower until the sum fits (None: there is room for all)."""
    fitting = list(widths)
    gaps = len(_GAP) * (len(fitting) - 1)
    while room is not None and sum(fitting) + gaps > room:
        widest = max(range(len(fitting)), key=fitting.__getitem__)
        if fitting[widest] <= _NARROWEST:
            break
        second = max([_NARROWEST, *(other for other in fitting if other < fitting[widest])])
        excess = sum(fitting) + gaps - room
        fitting[widest] = max(second - 1, fitting[widest] - excess, _NARROWEST)
    return fitting


def _aligned(cell: str, width: int, column: Column) -> str:
    shown = terminal.shorten(cell, width)
    padding = " " * (width - terminal.width(shown))
    return padding + shown if column.right else shown + padding


def print_fields(stream: TextIO, fields: Iterable[tuple[str, str]]) -> None:
    """Print a name and a value per line, values aligned; empty ones are left out, long ones not cut."""
    for name, value in fields:
        if value:
            print(f"{name:<{_NAME_WIDTH}}{_GAP}{terminal.printable(value)}", file=stream)
