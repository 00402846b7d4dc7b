"""A look at the database from outside of the servers, and locks held against them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from session_service.sessions.model import SessionKey, Tenant
from session_service.sessions.placement import lock_key

from tests.faults.conversations import AGENT

WAITING_FOR_LOCK = """
    SELECT count(*) FROM pg_locks
    WHERE locktype = 'advisory' AND NOT granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32) | objid::bigint = $1
"""
SAVING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND state = 'active' AND query LIKE '%save_sessions_v2(%'
"""
SERVERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'session-service'
"""
TERMINATE_SERVERS = f"SELECT pid, pg_terminate_backend(pid, 10000) FROM ({SERVERS}) AS servers"  # noqa: S608 - the statement above


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Give a connection as the owner, which no server knows of."""
    connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        connection.terminate()


async def query(url: str, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
    """Run one statement over a connection of its own."""
    async with connected(url) as connection:
        return await connection.fetch(statement, *arguments)


async def until(condition: Callable[[], Awaitable[object] | object], timeout: float = 30) -> Any:
    """Ask again and again until the answer is true, and return it."""
    async with asyncio.timeout(timeout):
        while True:
            answer = condition()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(0.005)


def lock_of(session_name: str, agent_id: str = AGENT) -> int:
    """Return the key of the advisory lock that guards a session."""
    return lock_key(SessionKey(Tenant(0, "default", b""), agent_id, session_name))


class HeldLock:
    """A session's lock, held by somebody who is no server."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", key: int) -> None:
        self._connection = connection
        self._key = key

    async def waiting(self) -> int:
        """Return how many wait for it now."""
        return int(await self._connection.fetchval(WAITING_FOR_LOCK, self._key))

    async def release(self) -> None:
        await self._connection.execute("SELECT pg_advisory_unlock($1)", self._key)


@asynccontextmanager
async def lock_held(url: str, session_name: str, agent_id: str = AGENT) -> AsyncIterator[HeldLock]:
    """Hold a session's lock until the block ends or `release` is called."""
    async with connected(url) as connection:
        key = lock_of(session_name, agent_id)
        await connection.execute("SELECT pg_advisory_lock($1)", key)
        yield HeldLock(connection, key)


@asynccontextmanager
async def revisions_locked(url: str) -> AsyncIterator[None]:
    """Let every save get as far as its revision's row, and no further."""
    async with connected(url) as connection:
        await connection.execute("BEGIN; LOCK TABLE revisions IN ACCESS EXCLUSIVE MODE")
        yield
        # PostgreSQL may have been killed meanwhile.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.execute("ROLLBACK")


async def until_a_save_is_stuck(url: str) -> None:
    """Wait until a save is in the middle of its transaction: it waits for the table that `revisions_locked` holds."""
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'revisions'::regclass"
    async with connected(url) as connection:
        await until(lambda: connection.fetchval(waiting))
