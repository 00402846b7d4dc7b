"""One thing after another, in the order in which they came."""

import asyncio
import math
import time
from collections import deque
from contextlib import suppress


class Turn:
    """Is taken by one at a time, as an asyncio.Lock is; where nobody has it, without a coroutine.

    Who finds that it is not `taken` sets that, others `wait`; in either case `pass_on` follows.
    """

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self, deadline: float) -> None:
        """Take it after those who came before. Raises TimeoutError at `deadline`, of time.monotonic (inf: never)."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        self._waiting.append(granted)
        try:
            async with asyncio.timeout(None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())):
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled():  # granted, and then cancelled in the same moment
                self.pass_on()
            else:
                with suppress(ValueError):  # `pass_on` may have seen that it is cancelled
                    self._waiting.remove(granted)
            raise

    def pass_on(self) -> None:
        """Give it to the next one, or back."""
        while self._waiting:
            granted = self._waiting.popleft()
            if not granted.done():
                granted.set_result(None)
                return
        self.taken = False
