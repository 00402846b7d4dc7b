"""Which small segments of a transcript become one.

A message that was saved by itself is a row by itself: it compresses badly, and costs a row and an index entry. When its
transcript rests, it becomes a part of a segment of about TARGET_MESSAGES messages.

A transcript may go on after a rest, and its last, incomplete segment would then be rewritten each time. Of a growing
transcript the end is therefore packed only when there is as much to add as there is to rewrite: a message is rewritten
at most once for each doubling of its segment, and once more when that gets full. What cannot grow any more, or has not
for long, is packed to its end; a short end then joins the segment before it, since it would compress badly alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

from session_service.sessions.transcript import SEGMENT_BYTES

TARGET_MESSAGES = 64
"""A segment of so many messages is full. One may become nearly twice as long."""

FEWEST = 4
"""Segments at the end of a growing transcript that are worth being rewritten."""


class Piece(NamedTuple):
    """A segment without its payload."""

    first_message: int
    message_count: int
    raw_size: int
    """Bytes of its messages, framed and uncompressed."""


Pieces = Sequence[Piece]
"""Segments of one transcript, in their order."""


class Choice(NamedTuple):
    """What is to be done with some segments of a transcript."""

    runs: Sequence[Pieces]
    """Each is to become one segment."""
    rest: int | None
    """The first message that was not decided on, since more segments follow."""
    unfinished: bool
    """Whether there would be more to do if the transcript could not grow any more."""


def choose(pieces: Pieces, *, growing: bool, more: bool = False, target: int = TARGET_MESSAGES) -> Choice:
    """Which segments become one.

    Args:
        pieces: segments from the transcript's first on, or from where the choice before left a rest.
        growing: whether messages may still be appended.
        more: whether further segments follow.
        target: messages of a full segment.
    """
    *runs, last = _parted(pieces, target)
    if more:
        rest = last[0].first_message if last else pieces[-1].first_message + 1
        return Choice(_several(runs), rest, unfinished=False)
    if growing:
        end = _worthwhile(last)
        return Choice(_several([*runs, end]), None, unfinished=len(end) < len(last) > 1)
    if runs and last and _fits(last, runs[-1], target):
        last = [*runs.pop(), *last]
    return Choice(_several([*runs, last]), None, unfinished=False)


def _parted(pieces: Pieces, target: int) -> list[list[Piece]]:
    """All segments, parted into full runs; the last run is empty or not full."""
    runs: list[list[Piece]] = [[]]
    messages = size = 0
    for piece in pieces:
        run = runs[-1]
        if messages >= target or (run and not _follows(piece, run[-1], size, target)):
            run, messages, size = [], 0, 0
            runs.append(run)
        run.append(piece)
        messages, size = messages + piece.message_count, size + piece.raw_size
    if messages >= target:
        runs.append([])
    return runs


def _follows(piece: Piece, before: Piece, size: int, target: int) -> bool:
    """Whether a segment can be joined to a run: no hole, not full by itself, not beyond the limit of bytes."""
    adjacent = before.first_message + before.message_count == piece.first_message
    return adjacent and piece.message_count < target and size + piece.raw_size <= SEGMENT_BYTES


def _fits(last: Pieces, before: Pieces, target: int) -> bool:
    """Whether an incomplete end can be joined to the full run before it: it would compress badly by itself."""
    together = [*before, *last]
    adjacent = before[-1].first_message + before[-1].message_count == last[0].first_message
    messages = sum(piece.message_count for piece in together)
    return adjacent and messages < 2 * target and sum(piece.raw_size for piece in together) <= SEGMENT_BYTES


def _worthwhile(last: Pieces) -> Pieces:
    """The last segments of a growing transcript without those that are larger than all that follow them."""
    size = sum(piece.raw_size for piece in last)
    start = 0
    while start < len(last) and 2 * last[start].raw_size > size:
        size -= last[start].raw_size
        start += 1
    return last[start:] if len(last) - start >= FEWEST else ()


def _several(runs: Sequence[Pieces]) -> list[Pieces]:
    return [run for run in runs if len(run) > 1]
