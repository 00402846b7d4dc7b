"""Answers that wait to be sent over a stream, in frames of bounded size."""

from collections import deque

from agent_sessions.v1.session_service_pb2 import SaveResult, SaveSessionsResponse

MAX_FRAME_BYTES = 1 << 20
"""A frame that is this large takes no more answers: a stock client takes messages of at most 4 MiB."""


class Outbox:
    """What is to be sent, oldest first."""

    def __init__(self) -> None:
        self._frames: deque[SaveSessionsResponse] = deque()
        self._last_size = 0
        self.count = 0
        """Answers that wait."""

    def add(self, request_id: str) -> SaveResult:
        """An answer, to be filled in; `filled` must follow."""
        if not self._frames or self._last_size >= MAX_FRAME_BYTES:
            self._frames.append(SaveSessionsResponse())
            self._last_size = 0
        self.count += 1
        return self._frames[-1].results.add(request_id=request_id)

    def filled(self, answer: SaveResult) -> None:
        """Count the answer's size."""
        self._last_size += answer.ByteSize()

    def take(self) -> SaveSessionsResponse:
        """Remove the oldest frame; there must be one."""
        frame = self._frames.popleft()
        self.count -= len(frame.results)
        return frame
