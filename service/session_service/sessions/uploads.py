"""Messages that arrive piece by piece: compared with what is stored, then cut into segments.

As long as they are the beginning of what the session's head has, nothing need be written. That is told by running
digests alone, at the places (marks) where the stored ones are known. What came after the last mark that was met waits
here: no more than one segment holds.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from session_service.sessions import digests, fragments, transcript
from session_service.sessions.transcript import Owner, Run, Segment

UPLOAD_SECONDS = 3600.0
"""The longest that an upload may take, unless the server's setting says otherwise. What one that broke left behind may
be removed after that."""


class Mark(NamedTuple):
    """A place in a stored transcript where the running digest is known."""

    end: int
    """Messages up to here."""
    size: int
    """Bytes of them, framed."""
    digest: bytes
    owner: Owner
    """The transcript that owns the last of them."""


class Arriving:
    """The messages of one upload. Its methods compute for long: call them in a thread, one at a time."""

    def __init__(self, secret: bytes, *, compared: bool) -> None:
        """`compared`: there is something stored to compare with; see expect()."""
        self.secret = secret
        self._pending = Run(0, [], [digests.start(secret)], [0])
        self._marks: deque[Mark] = deque()
        self._known_to_the_end = not compared
        self._parted = not compared
        self.common: Mark | None = None
        """The last mark up to which all is equal; None: nothing is shared."""

    @property
    def parted(self) -> bool:
        """Whether what comes differs from what is stored, or is more; `common` does not change any more."""
        return self._parted

    @property
    def count(self) -> int:
        """Messages that have come."""
        return self._pending.end

    @property
    def end(self) -> Run:
        """The end of all that has come: a run of no messages."""
        run = self._pending
        return Run(run.end, (), run.digests[-1:], run.ends[-1:])

    def expects(self, count: int) -> bool:
        """Whether marks for so many more messages are missing."""
        if self._parted or self._known_to_the_end:
            return False
        return not self._marks or self._marks[-1].end < self.count + count

    def expect(self, marks: Iterable[Mark], *, last: bool) -> None:
        """Compare with these marks, too, in ascending order; `last`: there are no more."""
        self._marks.extend(marks)
        self._known_to_the_end = last

    def add(self, messages: Sequence[bytes]) -> Iterator[Segment]:
        """Take messages in; gives the segments that are complete by them and to be written, one by one."""
        before = self._pending
        more = Run.after(self.secret, before.end, before.digests[-1], before.ends[-1], messages)
        run = Run(
            before.first,
            [*before.messages, *messages],
            [*before.digests, *more.digests[1:]],
            [*before.ends, *more.ends[1:]],
        )
        if not self._parted:
            run = self._compare(run)
        self._pending = run
        if self._parted:
            yield from self._cut()

    def rest(self) -> Iterator[Segment]:
        """What is still to be written after the last message."""
        return transcript.cut(self._pending, self._pending.first)

    def _compare(self, run: Run) -> Run:
        """Follow the marks as far as they go; what comes after the last one met."""
        while self._marks and self._marks[0].end <= run.end:
            mark = self._marks[0]
            if run.digest(mark.end) != mark.digest:
                self._parted = True
                return run
            self.common = self._marks.popleft()
            run = _after(run, mark.end)
        if self._marks:
            # Fewer messages than up to the next mark must be fewer bytes.
            self._parted = run.ends[-1] >= self._marks[0].size
        else:
            self._parted = self._known_to_the_end
        return run

    def _cut(self) -> Iterator[Segment]:
        run = self._pending
        first = run.first
        while run.end - first > 1 and (
            run.ends[-1] - run.size(first) > transcript.SEGMENT_BYTES or run.end - first > transcript.SEGMENT_MESSAGES
        ):
            end, last = first + 1, min(run.end - 1, first + transcript.SEGMENT_MESSAGES)
            while end < last and run.size(end + 1) - run.size(first) <= transcript.SEGMENT_BYTES:
                end += 1
            payload = fragments.join(run.messages[first - run.first : end - run.first])
            yield Segment(first, end - first, run.size(end), payload, run.digest(end))
            first = end
        self._pending = _after(run, first)


def _after(run: Run, count: int) -> Run:
    """The rest of a run."""
    start = count - run.first
    return Run(count, run.messages[start:], run.digests[start:], run.ends[start:])
