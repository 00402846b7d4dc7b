"""What a live agent took over last, and which events are older than that."""

from collections import OrderedDict

from google.protobuf.timestamp_pb2 import Timestamp

from agent_sessions.v1 import session_pb2 as pb

REMEMBERED_EVENTS = 1024
"""So many applied events are known again when the agent follows from an older token."""


class LastApplied:
    """Tells whether a RESTORED event came after the restore that was applied last.

    A stream has a session's events in the order in which they were committed: what comes after the event
    of the restore that was applied last, is newer, whatever the clocks of the servers say, and so is what
    comes in a stream that began after it. Until that event has come by (a restore of one's own is applied long
    before its event arrives) times decide: the last_restore_time that it answered is not before the event of
    any restore that was committed before it. The newest 1,024 events that were applied are known again
    in any stream.
    """

    def __init__(self) -> None:
        self._time: Timestamp | None = None
        self._request_id = self._event_id = ""
        self._has_passed = False
        self._known: OrderedDict[str, None] = OrderedDict()

    def restored(self, session: pb.Session, request_id: str) -> None:
        """Note that a restore of one's own was applied; `session` is what it answered."""
        self._time, self._request_id, self._event_id = session.last_restore_time, request_id, ""
        self._has_passed = False

    def loaded(self) -> None:
        """Forget all: a revision was read without being restored, and whatever comes in the stream is newer.

        Times would not tell: an event has that of the call's beginning, and a revision that of another clock.
        """
        self._time, self._request_id, self._event_id = None, "", ""
        self._has_passed = False
        self._known.clear()

    def applied(self, event: pb.SessionEvent) -> None:
        """Note that this event, of the stream that is read, was applied."""
        self._time, self._request_id, self._event_id = event.create_time, "", event.event_id
        self._has_passed = True
        if event.event_id:
            self._known[event.event_id] = None
            if len(self._known) > REMEMBERED_EVENTS:
                self._known.popitem(last=False)

    def begin_stream(self, *, from_now: bool) -> None:
        """Note that another stream is about to be opened; one that does not begin now may begin with what is known."""
        self._has_passed = from_now

    def pass_by(self, event: pb.SessionEvent) -> None:
        """Note that this event, which is not applied, was read."""
        if self._is_last(event):
            self._has_passed = True

    def is_older(self, event: pb.SessionEvent) -> bool:
        """Tell whether the event was applied already, or came before the one that was applied last."""
        if event.event_id in self._known or self._is_last(event):
            return True
        if self._time is None or self._has_passed:
            return False
        return _place(event.create_time) <= _place(self._time)

    def _is_last(self, event: pb.SessionEvent) -> bool:
        if self._event_id:
            return event.event_id == self._event_id
        return bool(self._request_id) and event.request_id == self._request_id


def _place(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos
