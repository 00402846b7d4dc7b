"""Connections to PostgreSQL: bounded in number and in time, replaced when they die."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from session_service.postgres.errors import is_connection_lost, translated

if TYPE_CHECKING:  # generic in the stubs only
    from asyncpg.pool import PoolConnectionProxy

    Connection = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
else:
    Connection = asyncpg.Connection

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a new connection."""

LOCK_TIMEOUT = 5.0
"""Seconds to wait for a session that someone else is changing."""

ACQUIRE_TIMEOUT = 10.0
"""Seconds to wait for a free connection of the pool."""

CLOSE_TIMEOUT = 5.0
"""Seconds that connections in use are given when the pool closes."""


class Database:
    """A pool for short statements, and connections of one's own for those who keep one."""

    def __init__(
        self, dsn: str, *, role: str, pool_size: int, statement_timeout: float, direct_dsn: str | None = None
    ) -> None:
        self.dsn = dsn
        self._direct_dsn = direct_dsn or dsn
        self._role = role
        self.pool_size = pool_size
        """Connections at most; those of open() come on top."""
        self.on_event: Callable[[bool], None] = _ignore_event
        """Called when a transaction that logged events has committed, with whether all of them are saves."""
        self._options = _connect_options(statement_timeout)
        self._pool: asyncpg.Pool[asyncpg.Record]

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        role: str,
        pool_size: int = 10,
        statement_timeout: float = 10.0,
        direct_dsn: str | None = None,
    ) -> Database:
        """Opens the pool.

        Args:
            dsn: where PostgreSQL is, as libpq writes it.
            role: taken on by every connection (SET ROLE); it has no right to change the schema.
            pool_size: connections at most.
            statement_timeout: seconds that any statement may take.
            direct_dsn: the same database past a pooler between, for those who keep a connection; None: dsn.

        Raises:
            DatabaseUnavailable: no connection could be made.
        """
        database = cls(dsn, role=role, pool_size=pool_size, statement_timeout=statement_timeout, direct_dsn=direct_dsn)
        with translated():
            database._pool = await asyncpg.create_pool(
                dsn,
                # No floor: the pool would log its attempts to restore it while the database is away.
                min_size=0,
                max_size=pool_size,
                init=database._prepare,
                reset=_nothing_to_reset,
                **database._options,
            )
        await database.ping()
        return database

    async def fetch(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        """Rows of a statement that only reads; repeated where a dead connection is met.

        Raises:
            DatabaseUnavailable: no connection, or no answer in time.
        """
        with translated():
            # Connections that were cut while idle are found only by using them:
            # in the worst case every one of the pool.
            for _ in range(self.pool_size):
                try:
                    return await self._fetch_once(query, *args)
                except Exception as error:
                    if not is_connection_lost(error):
                        raise
            return await self._fetch_once(query, *args)

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """The first row, or None. Raises: what fetch() raises."""
        rows = await self.fetch(query, *args)
        return rows[0] if rows else None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool. One that failed or was left in the middle is not given to anyone again."""
        connection = await self._pool.acquire(timeout=ACQUIRE_TIMEOUT)
        try:
            yield connection
        except asyncio.CancelledError:
            # asyncpg cancels the statement, and the connection is good again: were it dropped, callers with short
            # deadlines would leave the others a pool of connections that are just being made.
            raise
        except BaseException as error:
            if not isinstance(error, asyncpg.PostgresError) or is_connection_lost(error):
                connection.terminate()
            raise
        finally:
            await self._pool.release(connection)

    async def open(self, *, direct: bool = False) -> asyncpg.Connection[asyncpg.Record]:
        """A connection of one's own, which the caller closes; `direct`: past a pooler. Raises: driver errors."""
        dsn = self._direct_dsn if direct else self.dsn
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn, **self._options)
        await self._prepare(connection)
        return connection

    async def ping(self) -> None:
        """Raises: DatabaseUnavailable, if PostgreSQL does not answer."""
        await self.fetch("SELECT 1")

    async def close(self) -> None:
        """Closes the pool; connections in use are given a moment."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    async def _fetch_once(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        async with self.connection() as connection:
            return await connection.fetch(query, *args)

    async def _prepare(self, connection: Connection) -> None:
        await connection.execute(f"SET ROLE {quoted(self._role)}")
        _notice_dead_peer(connection)


def _ignore_event(_: bool) -> None:
    """Nobody wants to know."""


def quoted(identifier: str) -> str:
    """An SQL identifier in quotes."""
    return '"' + identifier.replace('"', '""') + '"'


def _connect_options(statement_timeout: float) -> dict[str, Any]:
    return {
        "timeout": CONNECT_TIMEOUT,
        # The server's own limit comes first; this one is for a server that no longer answers.
        "command_timeout": statement_timeout + 2.0,
        "server_settings": {
            "application_name": "session-service",
            "statement_timeout": _milliseconds(statement_timeout),
            "lock_timeout": _milliseconds(LOCK_TIMEOUT),
            # An open transaction holds back all readers of the log.
            "idle_in_transaction_session_timeout": _milliseconds(statement_timeout),
            "tcp_keepalives_idle": "15",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
            "jit": "off",
            # Every statement has its index. A plan that was made for a table of a page or two would rather
            # read it whole, and is kept while the table grows, until PostgreSQL analyses it.
            "enable_seqscan": "off",
        },
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


async def _nothing_to_reset(_: Connection) -> None:
    """No statement of this service leaves anything behind in a session, so asyncpg's reset query is saved.

    A transaction that was left open asyncpg itself rolls back before.
    """


def _notice_dead_peer(connection: Connection) -> None:
    # asyncpg has no public way to its socket. TCP_USER_TIMEOUT bounds how long
    # sent data may stay unacknowledged, keepalive how long silence may last.
    transport = getattr(connection, "_transport", None)
    peer = transport.get_extra_info("socket") if transport else None
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 20_000),
    ):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
