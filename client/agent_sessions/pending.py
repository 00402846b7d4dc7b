"""Saves that wait for their answers: as entries of a frame, and their deadlines."""

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

PendingSave = tuple[bytes, str, float, asyncio.Future[Any]]
"""An encoded SaveSessionRequest and its request_id, the deadline by time.monotonic (inf: none), and what its caller
waits for. A plain tuple: one is made for every save."""

_REQUEST = bytes_tag(messages.FramedSave.REQUEST_FIELD_NUMBER)
_TIMEOUT = bytes_tag(messages.FramedSave.TIMEOUT_FIELD_NUMBER)
_SAVES = bytes_tag(messages.SaveSessionsRequest.SAVES_FIELD_NUMBER)
_SECONDS, _NANOS = number_tag(1), number_tag(2)
"""Of a google.protobuf.Duration."""
_NO_TIMEOUT = b""
_GRACE = 0.001
"""Seconds. Saves whose deadlines are so close together end together."""


def frame_entry(data: bytes, left: float) -> tuple[bytes, ...]:
    """Encode a save as an entry of a frame, in pieces; its caller waits for `left` seconds."""
    length = varint(len(data))
    timeout = _NO_TIMEOUT if left == math.inf else _timeout(math.ceil(left * 1000))
    size = varint(len(_REQUEST) + len(length) + len(data) + len(timeout))
    return (_SAVES, size, _REQUEST, length, data, timeout)


def fail(answer: "asyncio.Future[Any]", error: BaseException) -> None:
    """End a save, unless it has ended."""
    if not answer.done():
        answer.set_exception(error)


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
        for _, _, deadline, answer in self._pending.values():
            if answer.done():  # its caller has gone
                continue
            if deadline <= now:
                fail(answer, DeadlineExceeded("the server has not answered in time"))
            else:
                earliest = min(earliest, deadline)
        self.stop()
        if earliest < math.inf:
            self.set(earliest)


@lru_cache(256)  # saves of one moment, with the same timeout, have the same milliseconds left
def _timeout(milliseconds: int) -> bytes:
    seconds, rest = divmod(max(milliseconds, 1), 1000)  # 0 would be refused
    return embedded(_TIMEOUT, integer(_SECONDS, seconds) + integer(_NANOS, rest * 1_000_000))
