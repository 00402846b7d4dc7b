"""Puts a state together from the rows that hold it. Every row is checked over all that is taken from it."""

from collections.abc import Iterator, Sequence

import asyncpg

from session_service.codec import compression
from session_service.codec.compression import Packed, Unpacked
from session_service.postgres import checksums, rows
from session_service.postgres.checksums import RevisionFacts
from session_service.sessions import fragments


class Damaged(Exception):
    """Something that the state needs is damaged or missing."""


def join(revision: rows.Row, values: Sequence[asyncpg.Record], segments: Sequence[asyncpg.Record]) -> bytes:
    """An AgentState in wire form.

    Args:
        revision: the columns of RevisionFacts and its checksum, prefixed by `r_`, and `low`, the first message wanted.
        values: its big values.
        segments: the messages, in their order.

    Raises:
        Damaged: a row is missing, or is not what was stored.
    """
    try:
        return b"".join((_base(revision), *_values(values), *_messages(revision, segments)))
    except (compression.Damaged, fragments.MalformedFragment) as error:
        raise Damaged(str(error)) from error


def _base(revision: rows.Row) -> bytes:
    facts = RevisionFacts(*(revision[f"r_{column}"] for column in RevisionFacts._fields))
    if checksums.of_revision(facts) != revision["r_checksum"]:
        raise Damaged("checksum of the revision")
    return compression.unpack(revision["r_state_codec"], revision["r_state_raw_size"], revision["r_state"])


def _values(values: Sequence[asyncpg.Record]) -> Iterator[bytes]:
    for row in values:
        _, _, _, _, _, _, raw_size, codec, digest, payload, checksum = row
        if payload is None:
            raise Damaged("a value is missing")
        if checksums.of_value(raw_size, codec, digest, payload) != checksum:
            raise Damaged("checksum of a value")
        yield compression.unpack(codec, raw_size, payload)


def _messages(revision: rows.Row, segments: Sequence[asyncpg.Record]) -> Sequence[Unpacked]:
    """Runs of framed messages from `low` to the revision's last, without a hole."""
    position = low = revision["low"]
    message_count: int = revision["r_message_count"]
    packed: list[Packed] = []
    cuts: list[tuple[int, int, int | None]] = []
    for _, _, first, count, end_bytes, high, raw_size, codec, digest, payload, checksum in segments:
        if checksums.of_segment(first, count, end_bytes, raw_size, codec, digest, payload) != checksum:
            raise Damaged(f"checksum of the messages from {first}")
        # A child may begin within its parent's last segment; the rest of that one is not this revision's.
        after = first + count
        end = min(after, high)
        if not first <= position < end:
            raise Damaged(f"messages from {position} are missing")
        if end == message_count == after and digest != revision["r_digest"]:
            raise Damaged("the messages are another revision's")
        if first < low or end < after:
            cuts.append((len(packed), max(low - first, 0), end - first if end < after else None))
        packed.append(Packed(codec, raw_size, payload))
        position = end
    if position < message_count:
        raise Damaged(f"messages from {position} are missing")
    # All at once, and only what was found to be whole.
    runs = compression.unpack_all(packed)
    for place, start, end in cuts:
        runs[place] = _cut(bytes(runs[place]), start, end)
    return runs


def _cut(run: bytes, start: int, end: int | None) -> bytes:
    """The messages of a run from number `start` up to number `end`; None: up to its last."""
    return run[fragments.offset_of(run, start) : None if end is None else fragments.offset_of(run, end)]
