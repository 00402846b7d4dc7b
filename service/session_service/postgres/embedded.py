"""A PostgreSQL of our own: started, supervised and stopped with this process.

Durability is PostgreSQL's default: fsync and synchronous_commit are on.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import psutil
import structlog

from session_service.postgres.embedded_binaries import (
    PROCESS_OPTIONS,
    EmbeddedPostgresError,
    Owner,
    binaries,
    find_owner,
    make_programs_readable,
)
from session_service.postgres.embedded_directory import DataDirectory

DATABASE = "sessions"
OWNER_ROLE = "postgres"
"""The cluster's superuser; it owns the schema. The server works as another role."""

_SETTINGS = {
    "listen_addresses": "",  # the Unix socket only
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "256MB",
    # An open transaction holds back everything that waits for older ones to end.
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",  # costs more than it gives on short statements
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}
_FIRST_BACK_OFF = 0.1
_LONGEST_BACK_OFF = 5.0
_FAST_STOP = 30.0
"""Seconds for a stop with a checkpoint, before one without."""
_IMMEDIATE_STOP = 5.0
_log = structlog.stdlib.get_logger(__name__)


class EmbeddedPostgres:
    """PostgreSQL in a data directory, with one user of the directory at a time.

    A postmaster that a killed server left behind is stopped and replaced. One
    that dies is started again, for as long as `stop` was not called.
    """

    def __init__(self, data_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        self.directory = DataDirectory(data_dir)
        self._settings = _SETTINGS | dict(settings or {})
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def dsn(self) -> str:
        """URL of the database, as its owner."""
        return self.directory.dsn(OWNER_ROLE, DATABASE)

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster, if it was started."""
        return self._process.pid if self._process else None

    async def start(self, timeout: float = 300) -> str:
        """Start, wait until it answers, and return the URL as the owner.

        `timeout` leaves time for the recovery after a crash. Raises
        EmbeddedPostgresError; nothing is left running then.
        """
        self.directory.lock()
        try:
            async with asyncio.timeout(timeout):
                await self._start()
        except TimeoutError:
            await self.stop()
            raise EmbeddedPostgresError(f"PostgreSQL did not answer within {timeout:g} s") from None
        except BaseException:
            await self.stop()
            raise
        self._supervisor = asyncio.create_task(self._supervise())
        return self.dsn

    async def stop(self) -> None:
        """Stop PostgreSQL, completely, and give the directory back. Safe to call in any state."""
        if self._supervisor:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        if self._process:
            await _stop_process(self._process)
            self._process = None
            self.directory.remove_socket_dir()
        self.directory.unlock()

    async def _start(self) -> None:
        owner = await asyncio.to_thread(find_owner)
        if owner.switched:
            await asyncio.to_thread(make_programs_readable, binaries())
        await asyncio.to_thread(stop_leftover, self.directory.pgdata)
        await self.directory.prepare(owner)
        await self._launch_until_up(owner)
        await _ensure_database(self.directory.dsn(OWNER_ROLE, "postgres"))

    async def _launch_until_up(self, owner: Owner) -> None:
        """Start the postmaster; again, with growing pauses, while backends of a dead one hold its memory."""
        back_off, deadline = _FIRST_BACK_OFF, time.monotonic() + 30
        while True:
            self._process = await self._launch(owner)
            if await self._answers(self._process):
                return
            # Of a dead one: backends that still hold its memory, or itself, not yet reaped by its parent.
            said = self.directory.last_words()
            passing = "shared memory" in said or "already exists" in said
            if time.monotonic() > deadline or not passing:
                raise EmbeddedPostgresError(f"PostgreSQL did not start, see {self.directory.log}:\n{said}")
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, _LONGEST_BACK_OFF)

    async def _launch(self, owner: Owner) -> asyncio.subprocess.Process:
        socket_dir = str(self.directory.socket_dir).replace('"', '""')
        settings = self._settings | {"unix_socket_directories": f'"{socket_dir}"'}
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        with os.fdopen(self.directory.open_log(), "ab") as log:
            return await asyncio.create_subprocess_exec(
                *owner.command(binaries() / "postgres", "-D", str(self.directory.pgdata), *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **PROCESS_OPTIONS,
            )

    async def _answers(self, process: asyncio.subprocess.Process) -> bool:
        """Wait until PostgreSQL takes connections (True), or until the process has ended (False)."""
        pause = 0.02
        while process.returncode is None:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                connection = await asyncpg.connect(self.directory.dsn(OWNER_ROLE, "postgres"), timeout=5)
                await connection.close()
                return True
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, 0.5)  # each refusal during a recovery is a line in PostgreSQL's log
        return False

    async def _supervise(self) -> None:
        """Start a postmaster that died again, until cancelled."""
        owner = await asyncio.to_thread(find_owner)
        while self._process:
            code = await self._process.wait()
            _log.error("embedded PostgreSQL died, starting it again", exit_code=code)
            await self._start_again(owner)
            _log.info("embedded PostgreSQL is back", pid=self.pid)

    async def _start_again(self, owner: Owner) -> None:
        back_off = _FIRST_BACK_OFF
        while True:
            try:
                await asyncio.to_thread(stop_leftover, self.directory.pgdata)
                return await self._launch_until_up(owner)
            except (EmbeddedPostgresError, OSError) as failed:
                _log.error("embedded PostgreSQL does not start", error=str(failed), retry_after=back_off)
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, _LONGEST_BACK_OFF)


def stop_leftover(pgdata: Path) -> None:
    """Stop the postmaster of a server that was killed, if there is one. Blocks."""
    process = running_postmaster(pgdata)
    if process is None:
        _forget_zombie(pgdata)
        return
    _log.warning("stopping the PostgreSQL that a killed server left behind", pid=process.pid)
    for number, patience in ((signal.SIGINT, _FAST_STOP), (signal.SIGQUIT, _IMMEDIATE_STOP)):
        with contextlib.suppress(psutil.TimeoutExpired, psutil.NoSuchProcess):
            process.send_signal(number)
            process.wait(patience)
            return
    process.kill()


def _forget_zombie(pgdata: Path) -> None:
    """Remove postmaster.pid if it names a process that is dead and only waits to be reaped.

    PostgreSQL would take it for a running postmaster, for ever under a parent that never reaps.
    """
    named = pgdata / "postmaster.pid"
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        if psutil.Process(int(named.read_text().splitlines()[0])).status() == psutil.STATUS_ZOMBIE:
            named.unlink()


def running_postmaster(pgdata: Path) -> psutil.Process | None:
    """Return the process that postmaster.pid names, if it is a postmaster of this directory.

    The number alone would not do: it may belong to another program by now.
    """
    try:
        first, second = (pgdata / "postmaster.pid").read_text().splitlines()[:2]
        process = psutil.Process(int(first))
        is_ours = process.name() == "postgres" and Path(second) == pgdata and str(pgdata) in process.cmdline()
    except (OSError, ValueError, psutil.Error):
        return None
    return process if is_ours else None


async def _stop_process(process: asyncio.subprocess.Process) -> None:
    for number, patience in (
        (signal.SIGINT, _FAST_STOP),
        (signal.SIGQUIT, _IMMEDIATE_STOP),
        (signal.SIGKILL, _IMMEDIATE_STOP),
    ):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await process.wait()
            return


async def _ensure_database(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=30)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    finally:
        await connection.close()
