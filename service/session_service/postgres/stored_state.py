"""Gets a state out of the rows that hold it. Every row is checked over all that is taken from it."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import add, itemgetter
from typing import Any

import asyncpg

from session_service.codec import compression
from session_service.codec.compression import Unpacked
from session_service.postgres import checksums, rows
from session_service.postgres.checksums import RevisionFacts
from session_service.postgres.shared_work import share
from session_service.sessions import fragments
from session_service.sessions.digests import DIGEST_SIZE

BATCHES, BATCH = 8, 128
"""Of many segments: so many batches, that two threads end at about the same time; but no larger ones, so that neither
keeps the interpreter for long."""

_PLACE = itemgetter(1)


class Damaged(Exception):
    """Something that the state needs is damaged or missing."""


def pieces(
    revision: rows.Row, values: Sequence[asyncpg.Record], segments: Sequence[asyncpg.Record], *, shared: bool = False
) -> Sequence[Unpacked]:
    """An AgentState in wire form, to be joined.

    Args:
        revision: the columns of RevisionFacts and its checksum, prefixed by `r_`, and `low`, the first message wanted.
        values: its big values, in any order, as are the messages: PostgreSQL need not keep one.
        segments: the messages.
        shared: whether another thread is to do a part of it.

    Raises:
        Damaged: a row is missing, or is not what was stored.
    """
    try:
        return [base(revision), *_values(values), *_messages(revision, segments, shared=shared)]
    except (compression.Damaged, fragments.MalformedFragment) as error:
        raise Damaged(str(error)) from error


def base(revision: rows.Row) -> bytes:
    """The state without messages and big values; columns as for join(). Raises: Damaged, compression.Damaged."""
    facts = RevisionFacts(*(revision[f"r_{column}"] for column in RevisionFacts._fields))
    if checksums.of_revision(facts) != revision["r_checksum"]:
        raise Damaged("checksum of the revision")
    return compression.unpack(revision["r_state_codec"], revision["r_state_raw_size"], revision["r_state"])


def values_of(revision: rows.Row) -> list[tuple[bytes, int]]:
    """Digests and sizes of a revision's big values."""
    stored = revision["r_value_digests"] or b""
    names = json.loads(revision["r_value_names"] or "[]")
    found = [stored[n : n + DIGEST_SIZE] for n in range(0, len(stored), DIGEST_SIZE)]
    return [(digest, size) for digest, (_, size) in zip(found, names, strict=True)]


def _values(values: Sequence[asyncpg.Record]) -> Iterator[bytes]:
    for row in sorted(values, key=_PLACE):
        _, _, _, _, _, raw_size, codec, digest, payload, checksum = row
        if payload is None:
            raise Damaged("a value is missing")
        if checksums.of_value(raw_size, codec, digest, payload) != checksum:
            raise Damaged("checksum of a value")
        yield compression.unpack(codec, raw_size, payload)


def _messages(revision: rows.Row, segments: Sequence[asyncpg.Record], *, shared: bool) -> Sequence[Unpacked]:
    """Runs of framed messages from `low` to the revision's last, without a hole."""
    # By column, and each step for all rows: with a row per message, this is most of what a read costs in Python.
    columns = tuple(zip(*sorted(segments, key=_PLACE), strict=True)) or ((),) * 10
    first, count, high, digest = (columns[place] for place in (1, 2, 4, 7))
    runs = _unpacked(columns, shared=shared)
    ends = _ends(revision, first, count, high)
    if ends and ends[-1] == first[-1] + count[-1] and digest[-1] != revision["r_digest"]:
        raise Damaged("the messages are another revision's")
    # A child may begin within its parent's last segment; the rest of that one is not this revision's.
    low = revision["low"]
    if ends and (first[0] < low or ends != [*map(add, first, count)]):
        for place, end in enumerate(ends):
            if first[place] < low or end < first[place] + count[place]:
                runs[place] = _cut(bytes(runs[place]), max(low - first[place], 0), end - first[place])
    return runs


def _unpacked(columns: Sequence[Sequence[Any]], *, shared: bool) -> list[Unpacked]:
    """What the segments in these columns hold."""
    if not shared:
        return _check_and_unpack(columns)
    count = len(columns[0])
    size = min(BATCH, -(-count // BATCHES)) or 1
    batches = [[column[start : start + size] for column in columns] for start in range(0, count, size)]
    return [*chain.from_iterable(share(_check_and_unpack, batches))]


def _check_and_unpack(columns: Sequence[Sequence[Any]]) -> list[Unpacked]:
    _, first, count, end_bytes, _, raw_size, codec, digest, payload, checksum = columns
    found = checksums.of_segments(first, count, end_bytes, raw_size, codec, digest, payload)
    if found != [*checksum]:
        wrong = next(place for place, one in enumerate(found) if one != checksum[place])
        raise Damaged(f"checksum of the messages from {first[wrong]}")
    # Only what was found to be whole.
    return compression.unpack_all(codec, raw_size, payload)


def _ends(revision: rows.Row, first: Sequence[int], count: Sequence[int], high: Sequence[int]) -> Sequence[int]:
    """Up to which message each segment is the revision's. Raises: Damaged, where messages are missing."""
    position = revision["low"]
    ends = list(map(min, map(add, first, count), high))
    for begin, end in zip(first, ends, strict=True):
        if not begin <= position < end:
            raise Damaged(f"messages from {position} are missing")
        position = end
    if position < revision["r_message_count"]:
        raise Damaged(f"messages from {position} are missing")
    return ends


def _cut(run: bytes, start: int, end: int) -> bytes:
    """The messages of a run from number `start` up to number `end`."""
    return run[fragments.offset_of(run, start) : fragments.offset_of(run, end)]
