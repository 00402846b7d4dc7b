"""Tables for the terminal and for Markdown, and how medians with their spread are written."""

from collections.abc import Sequence
from statistics import median

NONE = "–"
Table = Sequence[Sequence[str]]
"""The columns' names, then the rows."""


def spread(found: Sequence[float], form: str) -> str:
    """Return the median, and from where to where the values go."""
    if not found:
        return NONE
    middle = form.format(median(found))
    if len(found) == 1:
        return middle
    return f"{middle} ({form.format(min(found))}–{form.format(max(found))})"


def plain(table: Table) -> str:
    """Return the table with its columns aligned."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)


def markdown(table: Table) -> str:
    """Return the table in Markdown."""
    head, *body = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([head, "|" + " --- |" * len(table[0]), *body])
