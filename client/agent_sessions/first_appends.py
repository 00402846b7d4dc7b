"""The appends by which a session was to begin, as long as none was acknowledged."""

import time
from collections import deque

from grpc import StatusCode

from agent_sessions.errors import SessionServiceError
from agent_sessions.saver import Saver

_ROOM = 4 << 20
"""Bytes of requests that are remembered, the newest ones."""

_OPEN = {
    StatusCode.CANCELLED,
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
}
"""Statuses that do not tell whether the request was stored; the others tell it of one attempt."""


class FirstAppends:
    """Those that raised. One of them may have made the session all the same, whatever its last attempt came to.

    Without it the next append would take that for another's session.
    """

    def __init__(self) -> None:
        self._raised: deque[tuple[bytes, str]] = deque()
        self._room = _ROOM

    def failed(self, data: bytes, request_id: str) -> None:
        """Note a request that raised; not one that is larger than all that is remembered."""
        self._raised.append((data, request_id))
        self._room -= len(data)
        while self._room < 0:
            data, _ = self._raised.popleft()
            self._room += len(data)

    def forget(self) -> None:
        """One was acknowledged."""
        self._raised.clear()
        self._room = _ROOM

    async def made_the_session(self, saver: Saver, deadline: float) -> bool:
        """Whether the session that is there was made by one of them: the server tells a request that it knows.

        Each is sent again as it was, so that it cannot be stored twice.

        Raises: SessionServiceError, if that cannot be told now.
        """
        for data, request_id in self._raised:
            try:
                await saver.save(data, request_id, max(0.0, deadline - time.monotonic()))
            except SessionServiceError as refusal:
                if refusal.code in _OPEN:
                    raise
            else:
                return True
        return False
