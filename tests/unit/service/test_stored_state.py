"""States from rows, of few and of many: the same bytes, and every damage found."""

import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from session_service.codec import compression
from session_service.postgres import checksums, shared_work, stored_state
from session_service.postgres.checksums import RevisionFacts
from session_service.postgres.stored_state import Damaged
from session_service.sessions import fragments

LENGTHS = [3, 40, 700]
COLUMNS = {"end_bytes": 3, "raw_size": 5, "codec": 6, "digest": 7, "payload": 8, "checksum": 9}
"""Of a segment's row, beside those that tell which messages it has."""
FIRST, COUNT, HIGH = 1, 2, 4

Segment = list[Any]


def messages(count: int) -> list[bytes]:
    """Some of which compress, some not."""
    chance = random.Random(count)  # noqa: S311 - test data, no secret
    return [b"%d " % n + (b"word " * chance.randrange(60) if n % 7 else chance.randbytes(200)) for n in range(count)]


def stored(given: Sequence[bytes], first: int = 0, size: int = 1, high: int = 1 << 40) -> list[Segment]:
    """The rows of these messages, so many in each."""
    found = []
    for start in range(0, len(given), size):
        part = given[start : start + size]
        packed = compression.pack(fragments.join(part))
        digest = b"%16d" % (first + start + len(part))
        facts = first + start, len(part), 1000 * start, packed.raw_size, packed.codec, digest, packed.payload
        begin, count, end_bytes, *rest = facts
        found.append([None, begin, count, end_bytes, high, *rest, checksums.of_segment(*facts)])
    return found


def revision(count: int, low: int = 0) -> Mapping[str, Any]:
    """The row of a revision with so many messages."""
    facts = RevisionFacts(1, count, 1, 3, 0, b"%16d" % count, b"s" * 16, b"\x28\x01\x01", None, None, None, None)
    columns = {f"r_{name}": value for name, value in facts._asdict().items()}
    return columns | {"r_checksum": checksums.of_revision(facts), "low": low}


@pytest.fixture(params=[False, True], ids=["alone", "shared"], autouse=True)
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether another thread does a part, on whatever machine."""
    monkeypatch.setattr(shared_work, "_free", threading.Semaphore(1))
    return bool(request.param)


def read(row: Mapping[str, Any], segments: Sequence[Segment], shared: bool) -> bytes:
    mixed: Any = random.Random(1).sample(segments, len(segments))  # noqa: S311 - an order, no secret
    return b"".join(stored_state.pieces(row, (), mixed, shared=shared))


@pytest.mark.parametrize("count", [0, *LENGTHS])
@pytest.mark.parametrize("size", [1, 64])
def test_messages_come_back_in_their_order(count: int, size: int, shared: bool) -> None:
    given = messages(count)
    assert read(revision(count), stored(given, size=size), shared) == b"\x28\x01\x01" + fragments.join(given)


@pytest.mark.parametrize("count", LENGTHS)
def test_only_the_newest_are_given(count: int, shared: bool) -> None:
    given = messages(count)
    low = count - 2
    segments = [row for row in stored(given, size=5) if row[FIRST] + row[COUNT] > low]
    assert read(revision(count, low), segments, shared) == b"\x28\x01\x01" + fragments.join(given[low:])


@pytest.mark.parametrize("count", LENGTHS)
def test_a_child_begins_within_its_parents_last_segment(count: int, shared: bool) -> None:
    given, other = messages(count), messages(count + 1)
    part = count // 2 + 1
    parent = [row for row in stored(given, size=4, high=part) if row[FIRST] < part]
    child = stored(other[part:], first=part)
    expected = fragments.join([*given[:part], *other[part:]])
    assert read(revision(count + 1), [*parent, *child], shared) == b"\x28\x01\x01" + expected


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("column", COLUMNS)
def test_damage_of_any_column_of_any_row_is_found(count: int, column: str, shared: bool) -> None:
    place = COLUMNS[column]
    for number in {0, 1, count // 2, count - 2, count - 1}:
        segments = stored(messages(count))
        was = segments[number][place]
        for damaged in _damaged(was):
            segments[number][place] = damaged
            with pytest.raises(Damaged, match=f"checksum of the messages from {number}$"):
                read(revision(count), segments, shared)


def _damaged(value: int | bytes) -> list[Any]:
    if isinstance(value, int):
        return [value + 1, value - 1, value ^ (1 << 30), -1, -(1 << 31), (1 << 31) - 1]
    return [value[:-1] + bytes((value[-1] ^ 1,)), value[:-1], value + b"x", b""]


@pytest.mark.parametrize("count", LENGTHS)
def test_damage_of_what_tells_the_messages_is_found(count: int, shared: bool) -> None:
    for number in {0, count // 2, count - 1}:
        for place in (FIRST, COUNT):
            for change in (-1, 1):
                segments = stored(messages(count))
                segments[number][place] += change
                with pytest.raises(Damaged):
                    read(revision(count), segments, shared)


@pytest.mark.parametrize("count", LENGTHS)
def test_a_missing_row_is_found(count: int, shared: bool) -> None:
    for number in {0, count // 2, count - 1}:
        segments = stored(messages(count))
        del segments[number]
        with pytest.raises(Damaged, match=f"messages from {number} are missing"):
            read(revision(count), segments, shared)


@pytest.mark.parametrize("count", LENGTHS)
def test_another_revisions_messages_are_found(count: int, shared: bool) -> None:
    row = dict(revision(count + 1)) | {"r_message_count": count}
    row["r_checksum"] = checksums.of_revision(RevisionFacts(*(row[f"r_{name}"] for name in RevisionFacts._fields)))
    with pytest.raises(Damaged, match="another revision's"):
        read(row, stored(messages(count)), shared)


@pytest.mark.parametrize("count", LENGTHS)
def test_nothing_is_unpacked_before_it_was_found_to_be_whole(
    count: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: set[bytes] = set()
    unpack_all = compression.unpack_all

    def noting(codecs: Sequence[int], raw_sizes: Sequence[int], payloads: Sequence[bytes]) -> Any:
        unpacked.update(payloads)
        return unpack_all(codecs, raw_sizes, payloads)

    monkeypatch.setattr(compression, "unpack_all", noting)
    segments = stored(messages(count))
    broken = b"broken" + segments[count // 2][COLUMNS["payload"]]
    segments[count // 2][COLUMNS["payload"]] = broken
    with pytest.raises(Damaged, match="checksum"):
        read(revision(count), segments, shared)
    assert broken not in unpacked
