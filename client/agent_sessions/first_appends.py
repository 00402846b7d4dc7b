"""The appends by which a session was to begin, as long as none was acknowledged."""

import time
from collections import deque

from grpc import StatusCode

from agent_sessions.errors import RevisionMismatch, SessionServiceError
from agent_sessions.saver import Saver

_KEPT = 16
"""Appends that are remembered, the newest ones."""

_IN_DOUBT = {
    StatusCode.CANCELLED,
    StatusCode.UNKNOWN,
    StatusCode.DEADLINE_EXCEEDED,
    StatusCode.INTERNAL,
    StatusCode.UNAVAILABLE,
}
"""With any other status nothing was stored."""


class FirstAppends:
    """Those whose outcome is not known: one of them may have made the session.

    Without it the next append would take that for another's session.
    """

    def __init__(self) -> None:
        self._in_doubt: deque[tuple[bytes, str]] = deque(maxlen=_KEPT)

    def failed(self, data: bytes, request_id: str, error: BaseException) -> None:
        """Note an append that raised."""
        if not isinstance(error, SessionServiceError) or error.code in _IN_DOUBT:
            self._in_doubt.append((data, request_id))

    def forget(self) -> None:
        """One was acknowledged."""
        self._in_doubt.clear()

    async def made_the_session(self, saver: Saver, deadline: float) -> bool:
        """Whether the session that is there was made by one of them: the server tells a request that it knows.

        Each is sent again as it was, so that it cannot be stored twice.
        """
        for data, request_id in self._in_doubt:
            try:
                await saver.save(data, request_id, max(0.0, deadline - time.monotonic()))
            except RevisionMismatch:
                continue
            return True
        return False
