"""How messages become segments, and where a new history parts from a stored one.

A transcript is an append-only run of messages; a revision is a prefix of one.
A save appends when it extends its transcript to the very end, and otherwise
begins a new transcript that shares the common beginning with its parent.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from session_service.sessions import digests, fragments

SEGMENT_BYTES = 1 << 20
"""A segment holds at most so many bytes of framed messages, or one larger message."""

SEGMENT_MESSAGES = 4096
"""And so many messages: whoever holds a segment in memory holds an object or more for each."""

MAX_DEPTH = 16
"""A transcript that would have more ancestors is written whole instead, so that a restore stays one short walk."""


class Segment(NamedTuple):
    """Consecutive messages, ready to be stored."""

    first_message: int
    message_count: int
    end_bytes: int
    """Bytes of all messages up to the segment's end, framed."""
    payload: bytes
    """A run of framed messages."""
    digest: bytes
    """Running digest at the segment's end."""


class Run(NamedTuple):
    """Messages that follow `first` others, with what is known at every place between them."""

    first: int
    messages: Sequence[bytes]
    digests: Sequence[bytes]
    """Running digest after first, first + 1 … messages."""
    ends: Sequence[int]
    """Bytes of the first, first + 1 … messages, framed."""

    @classmethod
    def after(cls, secret: bytes, first: int, digest: bytes, size: int, messages: Sequence[bytes]) -> "Run":
        """Messages after `first` others, whose running digest and framed bytes are given."""
        ends = list(accumulate(map(fragments.framed_size, messages), initial=size))
        return cls(first, messages, digests.running(secret, messages, digest), ends)

    @classmethod
    def whole(cls, secret: bytes, messages: Sequence[bytes]) -> "Run":
        """All messages of a state."""
        return cls.after(secret, 0, digests.start(secret), 0, messages)

    @property
    def end(self) -> int:
        """Number of messages, those before the run included."""
        return self.first + len(self.messages)

    def digest(self, count: int) -> bytes:
        """Running digest after `count` messages."""
        return self.digests[count - self.first]

    def size(self, count: int) -> int:
        """Bytes of the first `count` messages, framed."""
        return self.ends[count - self.first]


class Placed(NamedTuple):
    """Where a revision's messages are: the first n of a transcript, stored or about to be."""

    transcript_id: int | None
    """None: a new transcript."""
    parent_transcript_id: int | None
    parent_message_count: int
    parent_digest: bytes
    """Running digest over the parent's messages that a new transcript shares."""
    parent_bytes: int
    """Bytes of those messages, framed."""
    depth: int
    transcript_length: int
    """Messages in the transcript after this save."""
    segments: Sequence[Segment]
    """What has to be written."""

    @property
    def new_messages(self) -> int:
        """Messages to be written."""
        if len(self.segments) == 1:
            return self.segments[0].message_count
        return sum(segment.message_count for segment in self.segments)

    @property
    def kind(self) -> str:
        """How the messages were placed, for metrics: append, prefix, branch or whole."""
        if self.transcript_id is not None:
            return "append" if self.segments else "prefix"
        return "whole" if self.parent_transcript_id is None else "branch"


class Tail(NamedTuple):
    """The end of the transcript that a session's head uses, as the session's row tells it."""

    transcript_id: int
    transcript_length: int
    message_count: int
    digest: bytes
    """Running digest over the head's message_count messages."""


class Owner(NamedTuple):
    """The transcript that owns the last common message."""

    transcript_id: int
    depth: int


def cut(run: Run, first: int) -> Iterator[Segment]:
    """Cuts the messages from `first` on into segments."""
    begin, start = first, run.size(first)
    if (
        run.ends[-1] - start <= SEGMENT_BYTES and run.end - first <= SEGMENT_MESSAGES
    ):  # the usual case, without looking at each
        if begin < run.end:
            yield _segment(run, begin, run.end)
        return
    for index in range(first, run.end):
        if index > begin and (run.size(index + 1) - start > SEGMENT_BYTES or index - begin == SEGMENT_MESSAGES):
            yield _segment(run, begin, index)
            begin, start = index, run.size(index)
    if begin < run.end:
        yield _segment(run, begin, run.end)


def extends(tail: Tail, run: Run) -> bool:
    """Whether the messages, a whole state's, begin with all the head's messages."""
    return run.end >= tail.message_count and run.digest(tail.message_count) == tail.digest


def whole(run: Run) -> Placed:
    """A new transcript that shares nothing; the run must be a whole state's."""
    return Placed(None, None, 0, run.digest(0), 0, 0, run.end, list(cut(run, 0)))


def append(tail: Tail, run: Run) -> Placed:
    """Goes on at the very end of the head's transcript."""
    return Placed(tail.transcript_id, None, 0, b"", 0, 0, run.end, list(cut(run, tail.transcript_length)))


def prefix(tail: Tail) -> Placed:
    """The messages are all stored already, as a prefix of the head's transcript."""
    return Placed(tail.transcript_id, None, 0, b"", 0, 0, tail.transcript_length, ())


def branch(owner: Owner, common: int, run: Run) -> Placed:
    """A new transcript after the first `common` messages of a stored one. See too_deep()."""
    segments = list(cut(run, common))
    digest, size = run.digest(common), run.size(common)
    return Placed(None, owner.transcript_id, common, digest, size, owner.depth + 1, run.end, segments)


def too_deep(owner: Owner) -> bool:
    """Whether a branch of this transcript must be written whole instead."""
    return owner.depth >= MAX_DEPTH


def _segment(run: Run, begin: int, end: int) -> Segment:
    whole = begin == run.first and end == run.end
    payload = fragments.join(run.messages if whole else run.messages[begin - run.first : end - run.first])
    return Segment(begin, end - begin, run.size(end), payload, run.digest(end))
