"""The PostgreSQL that all stores share: a database per measurement, and what it cost."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil
from session_service.postgres.embedded import EmbeddedPostgres

PREFIX = "bench_"
SETTINGS = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_compression", "shared_buffers")
STORED = """
SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
WHERE relkind IN ('r', 'm') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""
"""Tables with their indexes and TOAST."""
PARTS = """
SELECT c.relname, pg_table_size(c.oid)::bigint - toast.size AS heap, toast.size AS toast,
    pg_indexes_size(c.oid)::bigint AS indexes
FROM pg_class AS c
CROSS JOIN LATERAL (SELECT coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0)::bigint AS size) AS toast
WHERE c.relkind IN ('r', 'm')
    AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
ORDER BY pg_total_relation_size(c.oid) DESC
"""
"""The same, parted."""


OLDEST = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
WHERE backend_xid IS NOT NULL
"""
"""Age in seconds of the oldest transaction with an id: readers of the log wait for it."""
WATCH_INTERVAL = 0.005
WATCHER = "benchmark watcher"
"""The application_name of what looks on by itself, and does not count."""
PIDS = f"SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name <> '{WATCHER}'"  # noqa: S608  a constant
"""Of backends, and of whatever works beside them."""


class Cluster:
    """A running PostgreSQL; makes and drops databases whose names begin with PREFIX."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def url(self, database: str) -> str:
        """Return the URL of one of its databases."""
        return urlunsplit(urlsplit(self.dsn)._replace(path=f"/{database}"))

    async def create(self, name: str, template: str = "template0") -> str:
        """Make a database anew, as a copy of another one, and return its name."""
        database = PREFIX + name.replace("-", "_")
        await self.drop(database)
        await self._execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')
        return database

    async def drop(self, database: str) -> None:
        """Remove a database, whoever is connected."""
        await self._execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')

    async def checkpoint(self) -> None:
        """Write a checkpoint: the next change of each page writes the page's image to the WAL."""
        await self._execute("CHECKPOINT")

    async def wal_position(self) -> int:
        """Return how many bytes of WAL were ever written."""
        position = await self._fetch(self.dsn, "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        assert isinstance(position, int)
        return position

    async def stored_bytes(self, database: str) -> int:
        """VACUUM, and return the size of all tables, indexes and TOAST."""
        await self._execute("VACUUM", self.url(database))
        stored = await self._fetch(self.url(database), STORED)
        assert isinstance(stored, int)
        return stored

    async def stored_parts(self, database: str) -> dict[str, list[int]]:
        """VACUUM, and return the size of each table's rows, of its TOAST and of its indexes, the largest first."""
        await self._execute("VACUUM", self.url(database))
        connection = await asyncpg.connect(self.url(database))
        try:
            return {
                row["relname"]: [row["heap"], row["toast"], row["indexes"]] for row in await connection.fetch(PARTS)
            }
        finally:
            await connection.close()

    async def watch(self, ages: list[float]) -> None:
        """Note again and again how old the oldest writing transaction is, until cancelled."""
        connection = await asyncpg.connect(self.dsn, server_settings={"application_name": WATCHER})
        try:
            while True:
                ages.append(await connection.fetchval(OLDEST))
                await asyncio.sleep(WATCH_INTERVAL)
        finally:
            connection.terminate()

    async def pids(self) -> list[int]:
        """Return the processes that work for it now, if they are on this machine."""
        found = await self._fetch(self.dsn, PIDS)
        assert isinstance(found, list)
        return [pid for pid in found if _is_postgres(pid)]

    async def settings(self) -> dict[str, str]:
        """Return version and durability settings, for the report."""
        return {name: str(await self._fetch(self.dsn, f"SHOW {name}")) for name in SETTINGS}

    async def _execute(self, statement: str, dsn: str = "") -> None:
        connection = await asyncpg.connect(dsn or self.dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _fetch(self, dsn: str, query: str) -> object:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()


def _is_postgres(pid: int) -> bool:
    """Tell whether a process here has this number and is one of PostgreSQL's."""
    try:
        return psutil.Process(pid).name().startswith("postgres")
    except psutil.Error:
        return False


@asynccontextmanager
async def cluster(dsn: str | None) -> AsyncIterator[Cluster]:
    """Give the PostgreSQL at a URL, or run one of our own in a temporary directory."""
    if dsn:
        yield Cluster(dsn)
        return
    directory = Path(tempfile.mkdtemp(prefix="session-bench-"))
    # Sixteen client processes with ten connections each.
    embedded = EmbeddedPostgres(directory / "data", {"max_connections": "300"})
    try:
        yield Cluster(await embedded.start())
    finally:
        await embedded.stop()
        await asyncio.to_thread(shutil.rmtree, directory)
