"""Who waits for a session's lock, and for how long.

Somebody else may hold a session's lock for seconds. Whoever waits for it keeps
a connection of the pool meanwhile, so the waits are bounded: else a few busy
sessions would take all connections, and every other session would wait, too.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from session_service.postgres.pool import LOCK_TIMEOUT
from session_service.sessions.errors import Contention

PATIENCE = 0.8 * LOCK_TIMEOUT
"""Seconds to wait for a turn or a place. Less than for the lock itself: whoever came together with the one
that waits for the lock gives up before it does, and does not wait for the lock anew."""


class LockWaits:
    """Turns at sessions, and places to wait in."""

    def __init__(self, places: int) -> None:
        self._turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._places = asyncio.Semaphore(places)

    @asynccontextmanager
    async def turn(self, lock_key: int) -> AsyncIterator[None]:
        """One at a time in this process: two saves of a session would only spoil each other's plans.

        Raises: Contention.
        """
        lock = self._turns.setdefault(lock_key, asyncio.Lock())
        await _acquire(lock)
        try:
            yield
        finally:
            lock.release()

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


async def _acquire(wanted: asyncio.Lock | asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            await wanted.acquire()
    except TimeoutError:
        raise Contention("the session is being changed by others; try again") from None
