"""A save that waits for its answer: its place in a frame, and its deadline."""

import asyncio
import math
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agent_sessions.errors import DeadlineExceeded
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.wire import bytes_tag, embedded, integer, number_tag, varint

FRAMING_BYTES = 32
"""More than one save's framing takes."""

_REQUEST = bytes_tag(messages.FramedSave.REQUEST_FIELD_NUMBER)
_TIMEOUT = bytes_tag(messages.FramedSave.TIMEOUT_FIELD_NUMBER)
_SAVES = bytes_tag(messages.SaveSessionsRequest.SAVES_FIELD_NUMBER)
_SECONDS, _NANOS = number_tag(1), number_tag(2)
"""Of a google.protobuf.Duration."""
_NO_TIMEOUT = b""
_GRACE = 0.001
"""Seconds. Saves whose deadlines are so close together end together."""


class PendingSave:
    """One save on its way.

    Arguments:
        data: an encoded SaveSessionRequest.
        request_id: the request's.
        deadline: by time.monotonic; inf: none.
        answer: what its caller waits for.
    """

    __slots__ = ("answer", "data", "deadline", "request_id", "sent")

    def __init__(self, data: bytes, request_id: str, deadline: float, answer: asyncio.Future[Any]) -> None:
        self.data = data
        self.request_id = request_id
        self.deadline = deadline
        self.answer = answer
        self.sent = False

    def add_to(self, frame: list[bytes], now: float) -> None:
        """Encode it as an entry of a frame, in pieces."""
        data = self.data
        request = _REQUEST + varint(len(data))
        timeout = _NO_TIMEOUT
        if self.deadline != math.inf:
            timeout = _timeout(max(math.ceil((self.deadline - now) * 1000), 1))  # 0 would be refused
        frame += (_SAVES, varint(len(request) + len(data) + len(timeout)), request, data, timeout)

    def fail(self, error: BaseException) -> None:
        """End it, unless it has ended."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Expiry:
    """Fails each save at its deadline, by one timer for the earliest of them all.

    It is not touched when saves are answered, only set anew when it goes off: for
    saves that share a timeout, which is the usual case, about once per timeout.
    """

    def __init__(self, pending: Mapping[str, PendingSave]) -> None:
        self._pending = pending
        self._timer: asyncio.TimerHandle | None = None
        self.next = math.inf
        """When the timer goes off, by time.monotonic."""

    def set(self, deadline: float) -> None:
        """Set the timer for a deadline that comes before the others."""
        self.stop()
        self.next = deadline
        delay = max(0.0, deadline - time.monotonic()) + _GRACE
        self._timer = asyncio.get_running_loop().call_later(delay, self._sweep)

    def stop(self) -> None:
        """Set no timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next = None, math.inf

    def _sweep(self) -> None:
        now = time.monotonic()
        earliest = math.inf
        for pending in self._pending.values():
            if pending.answer.done():  # its caller has gone
                continue
            if pending.deadline <= now:
                pending.fail(DeadlineExceeded("the server has not answered in time"))
            else:
                earliest = min(earliest, pending.deadline)
        self.stop()
        if earliest < math.inf:
            self.set(earliest)


@lru_cache(256)  # saves of one moment, with the same timeout, have the same milliseconds left
def _timeout(milliseconds: int) -> bytes:
    seconds, rest = divmod(milliseconds, 1000)
    return embedded(_TIMEOUT, integer(_SECONDS, seconds) + integer(_NANOS, rest * 1_000_000))
