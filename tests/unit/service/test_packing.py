"""Which segments become one, decided without a database."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from session_service.sessions.packing import FEWEST, TARGET_MESSAGES, Choice, Piece, choose
from session_service.sessions.transcript import SEGMENT_BYTES

HISTORIES = st.lists(
    st.tuples(
        st.integers(1, 100), st.sampled_from([0, 10, 1000, SEGMENT_BYTES // 2, SEGMENT_BYTES, 3 * SEGMENT_BYTES])
    ),
    max_size=150,
)


def pieces(*counts: int, size: int = 100) -> list[Piece]:
    """Segments with so many messages, each message of the same size."""
    return placed([(count, count * size) for count in counts])


def placed(segments: list[tuple[int, int]], first: int = 0) -> list[Piece]:
    found = []
    for count, size in segments:
        found.append(Piece(first, count, size))
        first += count
    return found


def shape(choice: Choice) -> list[list[int]]:
    return [[piece.message_count for piece in run] for run in choice.runs]


def packed(segments: list[Piece], choice: Choice) -> list[Piece]:
    """What the transcript is after the choice was carried out."""
    gone = {piece for run in choice.runs for piece in run}
    became = [
        Piece(run[0].first_message, sum(p.message_count for p in run), sum(p.raw_size for p in run))
        for run in choice.runs
    ]
    return sorted([piece for piece in segments if piece not in gone] + became)


def test_messages_are_packed_by_64() -> None:
    choice = choose(pieces(*[1] * 128), growing=False)
    assert shape(choice) == [[1] * 64, [1] * 64]
    assert not choice.unfinished


def test_a_short_end_joins_what_is_before_it() -> None:
    assert shape(choose(pieces(*[1] * 130), growing=False)) == [[1] * 64, [1] * 66]
    assert shape(choose(pieces(64, 70, *[1] * 57), growing=False)) == [[70, *[1] * 57]]
    assert shape(choose(pieces(64, 70, *[1] * 58), growing=False)) == [[1] * 58]
    assert shape(choose(placed([(64, SEGMENT_BYTES), (1, 1), (1, 1)]), growing=False)) == [[1, 1]]
    assert shape(choose([*pieces(64), *placed([(1, 1), (1, 1)], first=65)], growing=False)) == [[1, 1]]


def test_what_is_one_segment_stays() -> None:
    for nothing in ([], pieces(1), pieces(64), pieces(500), pieces(64, 64), pieces(64, 100, 30)):
        assert choose(nothing, growing=False).runs == []


def test_a_full_segment_is_not_rewritten_for_its_neighbours() -> None:
    assert shape(choose(pieces(2, 3, 64, 1, 500, 4, 4), growing=False)) == [[2, 3], [4, 4]]


def test_a_segment_of_less_than_1_mib() -> None:
    half = SEGMENT_BYTES // 2
    assert shape(choose(placed([(1, half), (1, half), (1, half), (1, half + 1), (1, 5)]), growing=False)) == [
        [1, 1],
        [1, 1],
    ]
    assert shape(choose(placed([(1, 3 * SEGMENT_BYTES), (1, 1), (1, 1)]), growing=False)) == [[1, 1]]


def test_nothing_is_joined_across_a_hole() -> None:
    before, after = pieces(1, 1), placed([(1, 9), (1, 9)], first=7)
    assert [[piece.first_message for piece in run] for run in choose([*before, *after], growing=False).runs] == [
        [0, 1],
        [7, 8],
    ]
    damaged = [Piece(0, 0, 9), Piece(1, -1, 9), Piece(2, 7, 9), Piece(3, 1, 9)]
    assert choose(damaged, growing=False).runs == []


def test_the_end_of_a_growing_transcript_waits_until_it_doubles() -> None:
    few = choose(pieces(*[1] * (FEWEST - 1)), growing=True)
    assert (few.runs, few.unfinished) == ([], True)
    assert shape(choose(pieces(*[1] * FEWEST), growing=True)) == [[1] * FEWEST]
    waits = choose(pieces(10, *[1] * 3), growing=True)
    assert (waits.runs, waits.unfinished) == ([], True)
    some = choose(pieces(40, *[1] * 9), growing=True)
    assert (shape(some), some.unfinished) == ([[1] * 9], True)
    assert shape(choose(pieces(10, *[1] * 10), growing=True)) == [[10, *[1] * 10]]
    full = choose(pieces(63, 1), growing=True)
    assert (shape(full), full.unfinished) == ([[63, 1]], False)


def test_a_page_leaves_what_may_go_on_to_the_next() -> None:
    choice = choose(pieces(*[1] * 100), growing=False, more=True)
    assert (shape(choice), choice.rest) == ([[1] * 64], 64)
    rest = choose(pieces(*[1] * 100)[64:], growing=False)
    assert (shape(rest), rest.rest) == ([[1] * 36], None)
    assert choose(pieces(*[1] * 64), growing=False, more=True).rest == 64  # what begins behind message 63


@given(HISTORIES, st.booleans())
def test_a_choice_is_carried_out_once(history: list[tuple[int, int]], growing: bool) -> None:
    segments = placed(history)
    choice = choose(segments, growing=growing)
    after = packed(segments, choice)
    assert choose(after, growing=growing).runs == [] or growing
    assert sum(piece.message_count for piece in after) == sum(piece.message_count for piece in segments)
    for before, piece in pairwise(after):
        assert before.first_message + before.message_count == piece.first_message
    for run in choice.runs:
        assert sum(piece.message_count for piece in run) < 2 * TARGET_MESSAGES
        assert sum(piece.raw_size for piece in run) <= SEGMENT_BYTES
    # What is small stays only where it would not fit.
    for one, other in pairwise(after):
        together = one.raw_size + other.raw_size <= SEGMENT_BYTES
        small = one.message_count < TARGET_MESSAGES and other.message_count < TARGET_MESSAGES
        assert growing or not (together and small)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 50_000)), min_size=1, max_size=300))
def test_a_byte_is_rewritten_only_a_few_times(history: list[tuple[int, int]]) -> None:
    segments: list[Piece] = []
    written = 0
    for piece in placed(history):
        segments.append(piece)
        choice = choose(segments, growing=True)
        written += sum(part.raw_size for run in choice.runs for part in run)
        segments = packed(segments, choice)
    assert written <= 12 * sum(size for _, size in history)
