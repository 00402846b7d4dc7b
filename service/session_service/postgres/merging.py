"""Makes one segment of several. Everything is checked first: damage must not get a checksum that fits it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.operations import SegmentRow
from session_service.postgres.saving import segment_row
from session_service.sessions import digests, fragments

COLUMNS = "first_message, message_count, end_bytes, raw_size, codec, digest, payload, checksum"
"""Of a stored segment."""


class Merged(NamedTuple):
    """Segments, and the one to replace them."""

    first_messages: Sequence[int]
    checksums: Sequence[int]
    """Of the rows that were read."""
    stored_bytes: int
    """Of their payloads, as they are stored."""
    row: SegmentRow


class _Checked(NamedTuple):
    stored: asyncpg.Record
    raw: bytes


def merge(secret: bytes, stored: Sequence[asyncpg.Record]) -> tuple[Sequence[Merged], Sequence[int]]:
    """One segment for each stretch of whole ones, and where the damaged ones begin, which are left as they are.

    Args:
        secret: the tenant's.
        stored: rows with COLUMNS, of neighbouring segments in their order.
    """
    stretches: list[list[_Checked]] = [[]]
    damaged: list[int] = []
    for row in stored:
        before = stretches[-1][-1].stored if stretches[-1] else None
        try:
            stretches[-1].append(_checked(secret, row, before))
        except (compression.Damaged, fragments.MalformedFragment):
            damaged.append(row["first_message"])
            stretches.append([])
    return [*_merged(stretches)], damaged


def _checked(secret: bytes, row: asyncpg.Record, before: asyncpg.Record | None) -> _Checked:
    """A row that was found to be whole, and to follow the one before it.

    Raises:
        Damaged, MalformedFragment: it is not.
    """
    first, count, end_bytes, raw_size, codec, digest, payload, checksum = row
    if checksums.of_segment(first, count, end_bytes, raw_size, codec, digest, payload) != checksum:
        raise compression.Damaged("checksum")
    raw = compression.unpack(codec, raw_size, payload)
    messages = [*fragments.split(raw)]
    if len(messages) != count:
        raise compression.Damaged("another number of messages")
    if before is not None:
        follows = before["first_message"] + before["message_count"] == first
        if not follows or before["end_bytes"] + raw_size != end_bytes:
            raise compression.Damaged("does not follow the segment before it")
        # Of the first in a stretch the checksum alone tells: what its digest goes on from is not read.
        if digests.running(secret, messages, before["digest"])[-1] != digest:
            raise compression.Damaged("digest")
    return _Checked(row, raw)


def _merged(stretches: Sequence[Sequence[_Checked]]) -> Iterator[Merged]:
    for stretch in stretches:
        if len(stretch) < 2:
            continue
        rows = [one.stored for one in stretch]
        first, last = rows[0]["first_message"], rows[-1]
        count = last["first_message"] + last["message_count"] - first
        payload = b"".join(one.raw for one in stretch)
        yield Merged(
            [row["first_message"] for row in rows],
            [row["checksum"] for row in rows],
            sum(len(row["payload"]) for row in rows),
            segment_row(first, count, last["end_bytes"], payload, last["digest"], compression.UNHURRIED),
        )
