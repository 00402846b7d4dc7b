"""How messages become segments, and where a new history parts from a stored one.

A transcript is an append-only run of messages; a revision is a prefix of one.
A save appends when it extends its transcript to the very end, and otherwise
begins a new transcript that shares the common beginning with its parent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from session_service.sessions import fragments

SEGMENT_BYTES = 1 << 20
"""A segment holds at most so many bytes of framed messages, or one larger message."""

MAX_DEPTH = 16
"""A transcript that would have more ancestors is written whole instead, so that a restore stays one short walk."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive messages, ready to be stored."""

    first_message: int
    message_count: int
    payload: bytes
    """A run of framed messages."""
    digest: bytes
    """Running digest at the segment's end."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a revision's messages are: the first n of a transcript, stored or about to be."""

    transcript_id: int | None
    """None: a new transcript."""
    parent_transcript_id: int | None
    parent_message_count: int
    parent_digest: bytes
    """Running digest over the parent's messages that a new transcript shares."""
    depth: int
    transcript_length: int
    """Messages in the transcript after this save."""
    segments: Sequence[Segment]
    """What has to be written."""

    @property
    def kind(self) -> str:
        """How the messages were placed, for metrics: append, prefix, branch or whole."""
        if self.transcript_id is not None:
            return "append" if self.segments else "prefix"
        return "whole" if self.parent_transcript_id is None else "branch"


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the transcript that a session's head uses, as the session's row tells it."""

    transcript_id: int
    transcript_length: int
    message_count: int
    digest: bytes
    """Running digest over the head's message_count messages."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The transcript that owns the last common message."""

    transcript_id: int
    depth: int


def cut(messages: Sequence[bytes], digests: Sequence[bytes], first: int) -> Iterator[Segment]:
    """Cuts messages[first:] into segments. `digests` are the running ones of all messages."""
    begin, size = first, 0
    for index in range(first, len(messages)):
        framed = fragments.framed_size(messages[index])
        if index > begin and size + framed > SEGMENT_BYTES:
            yield _segment(messages, digests, begin, index)
            begin, size = index, 0
        size += framed
    if begin < len(messages):
        yield _segment(messages, digests, begin, len(messages))


def extends(tail: Tail, digests: Sequence[bytes]) -> bool:
    """Whether the messages behind `digests` begin with all the head's messages."""
    return len(digests) > tail.message_count and digests[tail.message_count] == tail.digest


def whole(messages: Sequence[bytes], digests: Sequence[bytes]) -> Placed:
    """A new transcript that shares nothing."""
    return Placed(None, None, 0, digests[0], 0, len(messages), list(cut(messages, digests, 0)))


def append(tail: Tail, messages: Sequence[bytes], digests: Sequence[bytes]) -> Placed:
    """Goes on at the very end of the head's transcript; common = its whole length."""
    segments = list(cut(messages, digests, tail.transcript_length))
    return Placed(tail.transcript_id, None, 0, b"", 0, len(messages), segments)


def prefix(tail: Tail) -> Placed:
    """The messages are all stored already, as a prefix of the head's transcript."""
    return Placed(tail.transcript_id, None, 0, b"", 0, tail.transcript_length, ())


def branch(owner: Owner, common: int, messages: Sequence[bytes], digests: Sequence[bytes]) -> Placed:
    """A new transcript after the first `common` messages of a stored one."""
    if common == 0 or owner.depth >= MAX_DEPTH:
        return whole(messages, digests)
    segments = list(cut(messages, digests, common))
    return Placed(None, owner.transcript_id, common, digests[common], owner.depth + 1, len(messages), segments)


def _segment(messages: Sequence[bytes], digests: Sequence[bytes], begin: int, end: int) -> Segment:
    return Segment(begin, end - begin, fragments.join(messages[begin:end]), digests[end])
