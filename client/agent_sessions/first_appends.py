"""The appends by which a session was to begin, as long as none was acknowledged."""

import time

from agent_sessions.errors import AlreadyExists, FailedPrecondition, InvalidRequest, MessageTooLarge, RevisionMismatch
from agent_sessions.saver import Saver

_KEPT = 16
"""Requests that are remembered, and …"""
_ROOM = 16 << 20
"""… their bytes: at most."""

_REFUSED = (RevisionMismatch, InvalidRequest, AlreadyExists, FailedPrecondition, MessageTooLarge)
"""What tells that a request has stored nothing."""


class FirstAppends:
    """Those that raised. One of them may have made the session all the same, whatever its last attempt came to.

    Without it the next append would take that for another's session.
    """

    def __init__(self) -> None:
        self._raised: list[tuple[bytes, str]] = []
        self._size = 0

    def failed(self, data: bytes, request_id: str) -> None:
        """Note a request that was sent, and raised."""
        self._raised.append((data, request_id))
        self._size += len(data)
        while len(self._raised) > _KEPT or (self._size > _ROOM and len(self._raised) > 1):
            # The first one may have made the session before the server was lost, and the last ones once it was back.
            data, _ = self._raised.pop(len(self._raised) // 2)
            self._size -= len(data)

    def forget(self) -> None:
        """The session goes on from something else."""
        self._raised.clear()
        self._size = 0

    async def made_the_session(self, saver: Saver, deadline: float) -> bool:
        """Whether the session that is there was made by one of them: the server tells a request that it knows.

        Each is sent again as it was, so that it cannot be stored twice. What is refused did not make it, and is not
        asked for again.

        Raises: SessionServiceError, if that cannot be told now.
        """
        while self._raised:
            data, request_id = self._raised[0]
            try:
                await saver.save(data, request_id, max(0.0, deadline - time.monotonic()))
            except _REFUSED:
                self._raised.pop(0)
                self._size -= len(data)
            else:
                return True
        return False
