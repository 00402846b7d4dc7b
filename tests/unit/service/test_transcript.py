"""Where messages are put, decided without a database."""

from session_service.sessions import digests, fragments, transcript
from session_service.sessions.transcript import MAX_DEPTH, SEGMENT_BYTES, Owner, Tail

SECRET = b"s" * 32


def running(*messages: bytes) -> list[bytes]:
    return digests.running(SECRET, messages)


def tail(*messages: bytes, head: int | None = None) -> Tail:
    count = len(messages) if head is None else head
    return Tail(7, len(messages), count, running(*messages)[count])


def test_running_digests_tell_equal_beginnings() -> None:
    assert running(b"a", b"b", b"c")[:3] == running(b"a", b"b", b"x")[:3]
    assert running(b"a", b"b")[2] != running(b"ab", b"")[2]


def test_digests_of_two_tenants_differ() -> None:
    assert digests.running(b"1" * 32, [b"a"]) != digests.running(b"2" * 32, [b"a"])
    assert digests.start(b"1" * 32) != digests.start(b"2" * 32)


def test_a_snapshot_extends_its_head() -> None:
    assert transcript.extends(tail(b"a", b"b"), running(b"a", b"b", b"c"))
    assert transcript.extends(tail(b"a", b"b"), running(b"a", b"b"))
    assert not transcript.extends(tail(b"a", b"b"), running(b"a"))
    assert not transcript.extends(tail(b"a", b"b"), running(b"a", b"x", b"c"))


def test_an_append_writes_only_what_is_new() -> None:
    messages = [b"a", b"b", b"c"]
    placed = transcript.append(tail(b"a", b"b"), messages, running(*messages))
    (segment,) = placed.segments
    assert (segment.first_message, segment.message_count) == (2, 1)
    assert list(fragments.split(segment.payload)) == [b"c"]
    assert segment.digest == running(*messages)[3]
    assert (placed.kind, placed.transcript_id, placed.transcript_length) == ("append", 7, 3)


def test_a_branch_shares_the_common_beginning() -> None:
    messages = [b"a", b"x"]
    placed = transcript.branch(Owner(7, 3), 1, messages, running(*messages))
    assert (placed.kind, placed.parent_transcript_id, placed.parent_message_count, placed.depth) == ("branch", 7, 1, 4)
    assert placed.parent_digest == running(b"a")[1]
    assert [segment.first_message for segment in placed.segments] == [1]


def test_a_branch_of_nothing_or_too_deep_is_whole() -> None:
    messages = [b"a", b"x"]
    for owner, common in ((Owner(7, 0), 0), (Owner(7, MAX_DEPTH), 1)):
        placed = transcript.branch(owner, common, messages, running(*messages))
        assert (placed.kind, placed.parent_transcript_id, placed.depth) == ("whole", None, 0)
        assert sum(segment.message_count for segment in placed.segments) == 2
    assert transcript.branch(Owner(7, MAX_DEPTH - 1), 1, messages, running(*messages)).kind == "branch"


def test_segments_are_at_most_a_mebibyte() -> None:
    messages = [bytes([65 + n]) * 300_000 for n in range(10)]
    segments = list(transcript.cut(messages, running(*messages), 0))
    assert [s.message_count for s in segments] == [3, 3, 3, 1]
    assert [s.first_message for s in segments] == [0, 3, 6, 9]
    assert all(len(s.payload) <= SEGMENT_BYTES for s in segments)
    assert b"".join(s.payload for s in segments) == fragments.join(messages)


def test_a_message_larger_than_a_segment_stands_alone() -> None:
    messages = [b"a", b"b" * (SEGMENT_BYTES + 1), b"c"]
    segments = list(transcript.cut(messages, running(*messages), 0))
    assert [s.message_count for s in segments] == [1, 1, 1]


def test_no_messages_need_no_segment() -> None:
    assert list(transcript.cut([], running(), 0)) == []
