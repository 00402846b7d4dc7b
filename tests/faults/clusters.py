"""PostgreSQL clusters of a test's own, without anybody who starts them again: primaries, and replicas of them."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psutil
from session_service.postgres.embedded import DATABASE, OWNER_ROLE, running_postmaster
from session_service.postgres.embedded_binaries import PROCESS_OPTIONS, binaries, find_owner, run
from session_service.postgres.embedded_directory import DataDirectory
from session_service.postgres.migrate import migrate

from tests.faults.database import connected, until
from tests.faults.proxy import SOCKET, Proxy
from tests.fixtures.postgres import ROLE

SETTINGS = ("listen_addresses=", "fsync=off", "max_connections=100", "hot_standby_feedback=on", "jit=off")
ENOUGH = 30.0
"""Seconds for PostgreSQL to start or stop."""

REPLAYED = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
WRITTEN = "SELECT pg_current_wal_lsn()::text"
USE_UP_ID = "BEGIN; SELECT pg_current_xact_id(); ROLLBACK"
NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


class Cluster:
    """One data directory, and the PostgreSQL that runs on it."""

    def __init__(self, path: Path) -> None:
        self.directory = DataDirectory(path)
        self._owner = find_owner()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The database, as its owner."""
        return self.directory.dsn(OWNER_ROLE, DATABASE)

    async def create(self) -> None:
        """Make and start a cluster with an empty database of the current schema."""
        await self.start()
        async with connected(self.directory.dsn(OWNER_ROLE, "postgres")) as connection:
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        await migrate(self.url, role=ROLE)

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.directory.lock()
        await self.directory.prepare(self._owner)
        settings = (*SETTINGS, f"unix_socket_directories={self.directory.socket_dir}")
        with os.fdopen(self.directory.open_log(), "ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._owner.command(binaries() / "postgres", "-D", str(self.directory.pgdata)),
                *(f"--{setting}" for setting in settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **PROCESS_OPTIONS,
            )
        await until(self._answers, ENOUGH)

    async def copy(self, source: Proxy) -> None:
        """Make this a replica of another cluster, over a proxy, and start it."""
        self.directory.lock()
        host = str(source.directory)
        self.directory.path.chmod(0o755)
        self.directory.pgdata.mkdir(mode=0o700)
        os.chown(self.directory.pgdata, self._owner.uid, self._owner.gid)
        conninfo = f"host={host} user={OWNER_ROLE}"
        to = f"--pgdata={self.directory.pgdata}"
        await run(
            self._owner, "pg_basebackup", to, f"--dbname={conninfo}", "--write-recovery-conf", "--checkpoint=fast"
        )
        self.directory.unlock()
        await self.start()

    async def has_replayed(self, primary: "Cluster") -> None:
        """Wait until this replica has all that the primary has written by now."""
        async with connected(primary.url) as there, connected(self.url) as here:
            written = await there.fetchval(WRITTEN)
            await until(lambda: here.fetchval(REPLAYED, written))

    async def promote(self) -> None:
        """Make this replica a primary."""
        async with connected(self.url) as connection:
            assert await connection.fetchval("SELECT pg_promote()")

    async def restore_dump(self, source: "Cluster") -> None:
        """Replace this cluster's database by a dump of another's."""
        file = self.directory.path / "dump"
        async with connected(self.directory.dsn(OWNER_ROLE, "postgres")) as connection:
            await connection.execute(f"DROP DATABASE {DATABASE}")
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        for program, *arguments in (
            ("pg_dump", "--format=custom", f"--file={file}", f"--dbname={source.url}"),
            ("pg_restore", f"--dbname={self.url}", "--exit-on-error", str(file)),
        ):
            process = await asyncio.create_subprocess_exec(binaries() / program, *arguments)
            assert await process.wait() == 0

    async def use_up_ids(self, count: int) -> int:
        """Give ids to transactions that do nothing; return the one after them."""
        async with connected(self.url) as connection:
            for _ in range(count):
                await connection.execute(USE_UP_ID)
            return int(await connection.fetchval(NEXT_XID))

    async def restart(self) -> None:
        """Stop it properly, and start it again."""
        await self._end(signal.SIGINT)
        await self.start()

    async def kill(self) -> None:
        """SIGKILL to all of it at once."""
        postmaster = running_postmaster(self.directory.pgdata)
        family = postmaster.children() if postmaster else []
        for one in (postmaster, *family):
            if one is not None:
                one.kill()
        psutil.wait_procs(family)
        await self._end(signal.SIGKILL)

    async def remove(self) -> None:
        """End whatever still runs."""
        if self._process is not None:
            await self._end(signal.SIGQUIT)
        self.directory.remove_socket_dir()

    async def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            postmaster = running_postmaster(self.directory.pgdata)
            if postmaster is not None:
                postmaster.send_signal(number)
            await asyncio.wait_for(self._process.wait(), ENOUGH)
        self._process = None
        self.directory.unlock()

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, self.directory.last_words()
        try:
            async with connected(self.directory.dsn(OWNER_ROLE, "postgres")):
                return True
        except (OSError, asyncpg.PostgresError):
            return False


def url_of_both(primary: Cluster, replica: Cluster) -> str:
    """Return the URL of whichever of the two can be written to."""
    hosts = ",".join(quote(str(one.directory.socket_dir), safe="/") for one in (primary, replica))
    return f"postgresql://{OWNER_ROLE}@/{DATABASE}?host={hosts}&target_session_attrs=read-write"


async def open_to_all(proxy: Proxy) -> None:
    """Open a proxy that a PostgreSQL of another user can use."""
    await proxy.open()
    (proxy.directory / SOCKET).chmod(0o777)
