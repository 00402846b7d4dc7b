"""Where messages are put, decided without a database."""

from session_service.sessions import digests, fragments, transcript
from session_service.sessions.transcript import MAX_DEPTH, SEGMENT_BYTES, SEGMENT_MESSAGES, Owner, Run, Tail
from session_service.sessions.uploads import Arriving

SECRET = b"s" * 32


def run(*messages: bytes) -> Run:
    return Run.whole(SECRET, messages)


def tail(*messages: bytes, head: int | None = None) -> Tail:
    count = len(messages) if head is None else head
    return Tail(7, len(messages), count, run(*messages).digest(count))


def test_running_digests_tell_equal_beginnings() -> None:
    assert run(b"a", b"b", b"c").digests[:3] == run(b"a", b"b", b"x").digests[:3]
    assert run(b"a", b"b").digest(2) != run(b"ab", b"").digest(2)


def test_a_run_goes_on_where_another_ended() -> None:
    begun = run(b"a", b"b")
    rest = Run.after(SECRET, 2, begun.digest(2), begun.size(2), [b"c"])
    whole = run(b"a", b"b", b"c")
    assert (rest.end, rest.digest(3), rest.size(3)) == (3, whole.digest(3), whole.size(3))
    assert whole.size(3) == len(fragments.join([b"a", b"b", b"c"]))


def test_digests_of_two_tenants_differ() -> None:
    assert Run.whole(b"1" * 32, [b"a"]).digests != Run.whole(b"2" * 32, [b"a"]).digests
    assert digests.start(b"1" * 32) != digests.start(b"2" * 32)


def test_a_snapshot_extends_its_head() -> None:
    assert transcript.extends(tail(b"a", b"b"), run(b"a", b"b", b"c"))
    assert transcript.extends(tail(b"a", b"b"), run(b"a", b"b"))
    assert not transcript.extends(tail(b"a", b"b"), run(b"a"))
    assert not transcript.extends(tail(b"a", b"b"), run(b"a", b"x", b"c"))


def test_an_append_writes_only_what_is_new() -> None:
    placed = transcript.append(tail(b"a", b"b"), run(b"a", b"b", b"c"))
    (segment,) = placed.segments
    assert (segment.first_message, segment.message_count) == (2, 1)
    assert list(fragments.split(segment.payload)) == [b"c"]
    assert (segment.digest, segment.end_bytes) == (run(b"a", b"b", b"c").digest(3), 9)
    assert (placed.kind, placed.transcript_id, placed.transcript_length) == ("append", 7, 3)


def test_a_branch_shares_the_common_beginning() -> None:
    placed = transcript.branch(Owner(7, 3), 1, run(b"a", b"x"))
    assert (placed.kind, placed.parent_transcript_id, placed.parent_message_count, placed.depth) == ("branch", 7, 1, 4)
    assert (placed.parent_digest, placed.parent_bytes) == (run(b"a").digest(1), 3)
    assert [segment.first_message for segment in placed.segments] == [1]


def test_a_whole_transcript_shares_nothing() -> None:
    placed = transcript.whole(run(b"a", b"x"))
    assert (placed.kind, placed.parent_transcript_id, placed.depth) == ("whole", None, 0)
    assert sum(segment.message_count for segment in placed.segments) == 2


def test_branches_have_at_most_so_many_ancestors() -> None:
    assert transcript.too_deep(Owner(7, MAX_DEPTH))
    assert not transcript.too_deep(Owner(7, MAX_DEPTH - 1))


def test_segments_are_at_most_a_mebibyte() -> None:
    messages = [bytes([65 + n]) * 300_000 for n in range(10)]
    segments = list(transcript.cut(run(*messages), 0))
    assert [s.message_count for s in segments] == [3, 3, 3, 1]
    assert [s.first_message for s in segments] == [0, 3, 6, 9]
    assert all(len(s.payload) <= SEGMENT_BYTES for s in segments)
    assert b"".join(s.payload for s in segments) == fragments.join(messages)


def test_segments_have_at_most_so_many_messages() -> None:
    many = [b""] * (2 * SEGMENT_MESSAGES + 1)
    whole = transcript.whole(run(*many)).segments
    assert [segment.message_count for segment in whole] == [SEGMENT_MESSAGES, SEGMENT_MESSAGES, 1]
    arriving = Arriving(SECRET, compared=False)
    came = [*arriving.add(many[:5000]), *arriving.add(many[5000:]), *arriving.rest()]
    assert came == whole


def test_a_message_larger_than_a_segment_stands_alone() -> None:
    segments = list(transcript.cut(run(b"a", b"b" * (SEGMENT_BYTES + 1), b"c"), 0))
    assert [s.message_count for s in segments] == [1, 1, 1]


def test_no_messages_need_no_segment() -> None:
    assert list(transcript.cut(run(), 0)) == []
