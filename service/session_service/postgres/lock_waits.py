"""Who waits for a session's lock, and for how long.

Somebody else may hold a session's lock for seconds. Whoever waits for it keeps
a connection of the pool meanwhile, so the waits are bounded: else a few busy
sessions would take all connections, and every other session would wait, too.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from session_service.postgres.pool import LOCK_TIMEOUT
from session_service.sessions.errors import Contention

PATIENCE = 0.8 * LOCK_TIMEOUT
"""Seconds to wait for a turn while no other turn at the session ends, or for a place. Less than for the lock itself:
whoever came together with the one that waits for the lock gives up before it does, and does not wait for the lock anew.
However many wait, none gives up as long as the session's saves go on: those behind it would overtake it."""


class LockWaits:
    """Turns at sessions, and places to wait in."""

    def __init__(self, places: int) -> None:
        self._queues: dict[int, deque[asyncio.Future[None]] | None] = {}
        """Who waits for a turn at a session that somebody has a turn at; None: nobody has waited yet."""
        self._last_end: dict[int, float] = {}
        """When a turn at a session last ended, where somebody waits for one."""
        self._places = asyncio.Semaphore(places)

    def begin_turn_at_once(self, lock_key: int) -> bool:
        """Begin a turn if nobody has one; else False: wait for it by `begin_turn`."""
        if lock_key in self._queues:
            return False
        self._queues[lock_key] = None
        return True

    async def begin_turn(self, lock_key: int) -> None:
        """One at a time in this process: two saves of a session would only spoil each other's plans.

        Raises: Contention.
        """
        if self.begin_turn_at_once(lock_key):
            return
        queue = self._queues[lock_key]
        if queue is None:
            queue = self._queues[lock_key] = deque()
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await self._come_to_turn(lock_key, turn)
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.end_turn(lock_key)  # it came just then
            else:
                with suppress(ValueError):
                    queue.remove(turn)
            raise

    async def _come_to_turn(self, lock_key: int, turn: "asyncio.Future[None]") -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while not turn.done():
            left = max(began, self._last_end.get(lock_key, 0.0)) + PATIENCE - clock()
            if left <= 0:
                raise _contention()
            await asyncio.wait({turn}, timeout=left)

    def end_turn(self, lock_key: int) -> None:
        """Let the next one have its turn."""
        queue = self._queues[lock_key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                self._last_end[lock_key] = asyncio.get_running_loop().time()
                turn.set_result(None)
                return
        del self._queues[lock_key]
        self._last_end.pop(lock_key, None)

    @asynccontextmanager
    async def turn(self, lock_key: int) -> AsyncIterator[None]:
        """Have a turn. Raises: Contention."""
        await self.begin_turn(lock_key)
        try:
            yield
        finally:
            self.end_turn(lock_key)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Leave to wait for a lock with a connection of the pool. To be asked for after the turn, never before it.

        Raises: Contention.
        """
        await _acquire(self._places)
        try:
            yield
        finally:
            self._places.release()


async def _acquire(wanted: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await wanted.acquire()
    except TimeoutError:
        raise _contention() from None


def _contention() -> Contention:
    return Contention("the session is being changed by others; try again")
