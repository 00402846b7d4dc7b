"""What bounds uploads and downloads: memory for all of them together, and time for each.

Each takes a share of the memory when it begins: what it may hold while it waits for its caller, and while a message of
it is worked on. So a caller that stops sending or reading holds its share and nothing else, and that for a while only.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar

from session_service.sessions.errors import TooManyTransfers, TransferStalled
from session_service.sessions.transcript import SEGMENT_BYTES
from session_service.sessions.uploads import UPLOAD_SECONDS

PATIENCE = 5.0
"""Seconds to wait for a share of the memory, before the caller is told to come again."""

WINDOW = 512 << 10
"""Bytes of a stream that gRPC takes in before they are asked for: what a caller may send ahead."""

_Result = TypeVar("_Result")


class TransferLimits(NamedTuple):
    """The settings."""

    memory_bytes: int = 256 << 20
    """For all uploads and downloads together."""
    message_bytes: int = 4 << 20
    """The largest message of a stream."""
    state_bytes: int = 1 << 30
    """The largest state that can be uploaded."""
    idle_seconds: float = 30.0
    """How long a caller is waited for."""
    seconds: float = UPLOAD_SECONDS
    """How long one upload or download may take."""

    @property
    def share(self) -> int:
        """Bytes for one of them.

        A message as gRPC has it, as bytes, parsed, and in pieces; segments before and after they are compressed;
        windows. Measured with messages as large as they may be.
        """
        return min(4 * self.message_bytes + 2 * SEGMENT_BYTES + 2 * WINDOW, self.memory_bytes)


class Transfers:
    """All uploads and downloads of this server."""

    def __init__(self, limits: TransferLimits | None = None) -> None:
        self.limits = limits or TransferLimits()
        self._left = self.limits.memory_bytes
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        """A share of the memory, and a bound of time, for one of them.

        Raises:
            TooManyTransfers: there was no share within PATIENCE.
            TransferStalled: it took too long.
        """
        await self._take_share()
        try:
            async with asyncio.timeout(self.limits.seconds) as whole:
                yield
        except TimeoutError:
            if whole.expired():
                raise _stalled("took more than", self.limits.seconds) from None
            raise
        finally:
            self._give_share_back()

    async def caller(self, step: Awaitable[_Result]) -> _Result:
        """Wait for the caller to send or to read. Raises: TransferStalled."""
        try:
            async with asyncio.timeout(self.limits.idle_seconds) as pause:
                return await step
        except TimeoutError:
            if pause.expired():
                raise _stalled("paused for", self.limits.idle_seconds) from None
            raise

    async def _take_share(self) -> None:
        """In the order of arrival, so that none waits for ever."""
        if not self._waiting and self._left >= self.limits.share:
            self._left -= self.limits.share
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(PATIENCE):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._give_share_back()  # it came just then
            else:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _too_many(self.limits) from None
            raise

    def _give_share_back(self) -> None:
        self._left += self.limits.share
        while self._waiting and self._left >= self.limits.share:
            turn = self._waiting.popleft()
            if not turn.done():
                self._left -= self.limits.share
                turn.set_result(None)


def _stalled(how: str, seconds: float) -> TransferStalled:
    return TransferStalled(f"the caller {how} {seconds:g} s; the transfer was ended", {"limit": f"{seconds:g}"})


def _too_many(limits: TransferLimits) -> TooManyTransfers:
    return TooManyTransfers(
        f"all {limits.memory_bytes} bytes of memory for uploads and downloads are taken; try again",
        {"limit": str(limits.memory_bytes)},
    )
