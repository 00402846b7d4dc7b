"""The pool of connections, where calls are given up."""

import asyncio

import asyncpg
from session_service.postgres.pool import Database

ROLE = "session_service_runtime"
PID = "SELECT pg_backend_pid() AS pid"
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'"
LONG = "SELECT pg_sleep(60)"


async def until_active(watcher: "asyncpg.Connection[asyncpg.Record]", count: int) -> None:
    while await watcher.fetchval(ACTIVE, LONG) != count:  # noqa: ASYNC110 - another process tells
        await asyncio.sleep(0)


async def test_a_statement_given_up_ends_and_its_connection_stays(database_url: str) -> None:
    database = await Database.connect(database_url, role=ROLE, pool_size=1)
    watcher = await asyncpg.connect(database_url)
    try:
        before = await database.fetch(PID)
        for _ in range(5):
            long = asyncio.create_task(database.fetch(LONG))
            await until_active(watcher, 1)
            long.cancel()
            await asyncio.gather(long, return_exceptions=True)
            assert await database.fetch(PID) == before
            await until_active(watcher, 0)
    finally:
        await database.close()
        await watcher.close()


async def test_a_transaction_left_open_is_nobodys(database_url: str) -> None:
    database = await Database.connect(database_url, role=ROLE, pool_size=1)
    try:
        async with database.connection() as connection:
            await connection.execute("BEGIN")
        async with database.connection() as connection:
            assert not connection.is_in_transaction()
    finally:
        await database.close()
