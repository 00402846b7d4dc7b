"""Messages that arrive piece by piece: equal to what is stored as long as the marks say so, then cut into segments."""

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from session_service.sessions import digests, fragments, transcript
from session_service.sessions.transcript import Owner, Run, Segment
from session_service.sessions.uploads import Arriving, Mark

SECRET = b"secret"
OWNER = Owner(1, 0)
MESSAGES = st.lists(st.sampled_from([b"", b"a", b"b", b"c" * 9, b"d" * 30]), max_size=30)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcript, "SEGMENT_BYTES", 20)


def marks(stored: list[bytes], lengths: list[int]) -> list[Mark]:
    """The ends of segments of these lengths."""
    run = Run.whole(SECRET, stored)
    return [Mark(end, run.size(end), run.digest(end), OWNER) for end in accumulate(lengths) if end <= len(stored)]


def send(arriving: Arriving, messages: list[bytes], batch: int, expected: list[Mark]) -> list[Segment]:
    written: list[Segment] = []
    for first in range(0, len(messages), batch):
        part = messages[first : first + batch]
        while arriving.expects(len(part)):
            arriving.expect(expected[:1], last=not expected)
            expected = expected[1:]
        written += arriving.add(part)
        waiting = fragments.join(arriving._pending.messages)
        assert len(waiting) <= 20 + 32
    return [*written, *arriving.rest()]


@given(
    stored=MESSAGES,
    messages=MESSAGES,
    kept=st.integers(0, 30),
    lengths=st.lists(st.integers(1, 4), min_size=30, max_size=30),
    batch=st.integers(1, 7),
)
def test_what_is_shared_and_what_is_written_are_the_whole(
    stored: list[bytes], messages: list[bytes], kept: int, lengths: list[int], batch: int
) -> None:
    # A stored segment is as large as these here, or one larger message.
    lengths = [end - first for first, end in cuts(stored)] if kept % 2 else [1] * 30
    messages = [*stored[:kept], *messages]
    arriving = Arriving(SECRET, compared=True)
    written = send(arriving, messages, batch, marks(stored, lengths))
    common = arriving.common.end if arriving.common else 0
    whole = Run.whole(SECRET, messages)
    assert messages[:common] == stored[:common]
    assert b"".join(segment.payload for segment in written) == fragments.join(messages[common:])
    position = common
    for segment in written:
        assert segment.first_message == position
        position += segment.message_count
        assert (segment.digest, segment.end_bytes) == (whole.digest(position), whole.size(position))
        assert len(segment.payload) <= 20 or segment.message_count == 1
    assert arriving.count == position == len(messages)
    assert arriving.end == Run(len(messages), (), [whole.digest(len(messages))], [whole.size(len(messages))])
    # Nothing is written anew that a mark would have spared.
    ends = [mark.end for mark in marks(stored, lengths) if messages[: mark.end] == stored[: mark.end]]
    assert common == max((end for end in ends if end <= len(messages)), default=0)


def cuts(messages: list[bytes]) -> list[tuple[int, int]]:
    run = Run.whole(SECRET, messages)
    return [(s.first_message, s.first_message + s.message_count) for s in transcript.cut(run, 0)]


def test_nothing_is_compared_where_nothing_is_stored() -> None:
    arriving = Arriving(SECRET, compared=False)
    assert arriving.parted
    assert not arriving.expects(10)
    assert [segment.message_count for segment in send(arriving, [b"a"] * 30, 4, [])] == [6, 6, 6, 6, 6]
    assert arriving.common is None


def test_no_messages() -> None:
    arriving = Arriving(SECRET, compared=True)
    assert list(arriving.rest()) == []
    assert arriving.end == Run(0, (), [digests.start(SECRET)], [0])
