"""One thing after another, in the order in which they came."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from agent_sessions.errors import DeadlineExceeded

_Result = TypeVar("_Result")


class Turn:
    """Is taken by one at a time, as an asyncio.Lock is; where nobody has it, without a coroutine.

    Who finds that it is not `taken` sets that, others `wait`; in either case `pass_on` follows.
    """

    __slots__ = ("_waiting", "taken")

    def __init__(self) -> None:
        self.taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def run(self, work: Callable[[float], Awaitable[_Result]], seconds: float) -> _Result:
        """Take it, do the work, pass it on. `work` is given its deadline, of time.monotonic."""
        deadline = time.monotonic() + seconds
        if self.taken:
            await self.wait_in_call(deadline, seconds)
        else:
            self.taken = True
        try:
            return await work(deadline)
        finally:
            self.pass_on()

    async def wait_in_call(self, deadline: float, seconds: float) -> None:
        """Do as `wait` does, in a call that has so many seconds. Raises DeadlineExceeded when they are over."""
        try:
            await self.wait(deadline)
        except TimeoutError:
            raise DeadlineExceeded(f"earlier saves of this session took all of {seconds:g} s") from None

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
