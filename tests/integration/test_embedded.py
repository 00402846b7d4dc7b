import asyncio
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio
from session_service.postgres import embedded_directory
from session_service.postgres.embedded import EmbeddedPostgres, running_postmaster
from session_service.postgres.embedded_binaries import EmbeddedPostgresError
from session_service.postgres.embedded_directory import DataDirectoryInUseError


@pytest_asyncio.fixture
async def embedded(data_dir: Path) -> AsyncIterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(data_dir)
    await postgres.start()
    yield postgres
    await postgres.stop()


async def fetchval(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def until_replaced(postgres: EmbeddedPostgres, dead: int) -> None:
    """Wait until another postmaster than `dead` answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                await fetchval(postgres.dsn, "SELECT 1")
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.02)
            else:
                assert postgres.pid != dead
                return


async def test_settings_are_durable_local_and_utf8(embedded: EmbeddedPostgres) -> None:
    for name, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
        "lc_collate": "C",
        "idle_in_transaction_session_timeout": "10s",
    }.items():
        if name != "lc_collate":
            assert await fetchval(embedded.dsn, f"SHOW {name}") == value, name
    collation = "SELECT datcollate FROM pg_database WHERE datname = current_database()"
    assert await fetchval(embedded.dsn, collation) == "C"


async def test_data_survive_a_stop_and_a_start(embedded: EmbeddedPostgres) -> None:
    await fetchval(embedded.dsn, "CREATE TABLE kept AS SELECT 7 AS n")
    pid = embedded.pid
    await embedded.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert await fetchval(await embedded.start(), "SELECT n FROM kept") == 7


async def test_files_are_closed_to_other_users(embedded: EmbeddedPostgres) -> None:
    for path in (embedded.directory.pgdata, embedded.directory.socket_dir):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    assert stat.S_IMODE(embedded.directory.log.stat().st_mode) == 0o600
    if os.geteuid() == 0:
        assert embedded.directory.pgdata.stat().st_uid != 0


async def test_a_second_server_on_the_same_directory_is_told_who_has_it(embedded: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(embedded.directory.path)
    with pytest.raises(DataDirectoryInUseError, match=str(os.getpid())):
        await second.start()
    await second.stop()
    assert await fetchval(embedded.dsn, "SELECT 1") == 1


async def test_a_killed_postmaster_is_started_again_without_blocking(embedded: EmbeddedPostgres) -> None:
    longest, last, ended = 0.0, time.monotonic(), threading.Event()

    async def tick() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    def tick_beside() -> float:
        """Tell for how long the machine let nobody work."""
        longest, last = 0.0, time.monotonic()
        while not ended.wait(0.01):
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    ticking, beside = asyncio.create_task(tick()), asyncio.create_task(asyncio.to_thread(tick_beside))
    try:
        for _ in range(3):
            # A connection whose backend outlives its postmaster for a moment.
            connection = await asyncpg.connect(embedded.dsn)
            dead = embedded.pid
            assert dead is not None
            os.kill(dead, signal.SIGKILL)
            await until_replaced(embedded, dead)
            connection.terminate()
    finally:
        ticking.cancel()
        ended.set()
    assert longest < 1.0 + 3 * await beside


async def test_what_a_killed_server_left_is_replaced(data_dir: Path) -> None:
    command = [sys.executable, "-c", START_AND_DIE, str(data_dir)]
    started = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert started.returncode == -signal.SIGKILL, started.stderr
    left = running_postmaster(data_dir / "pgdata")
    assert left is not None
    postgres = EmbeddedPostgres(data_dir)
    try:
        await postgres.start()
        assert not left.is_running()
        assert await fetchval(postgres.dsn, "SELECT n FROM kept") == 7
    finally:
        await postgres.stop()


START_AND_DIE = """
import asyncio, os, signal, sys, asyncpg
from pathlib import Path
from session_service.postgres.embedded import EmbeddedPostgres

async def main():
    connection = await asyncpg.connect(await EmbeddedPostgres(Path(sys.argv[1])).start())
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("delay", [0.0, 0.3, 1.0])
async def test_an_interrupted_start_leaves_nothing_and_can_be_repeated(data_dir: Path, delay: float) -> None:
    postgres = EmbeddedPostgres(data_dir)
    starting = asyncio.create_task(postgres.start())
    await asyncio.wait({starting}, timeout=delay)
    starting.cancel()
    await asyncio.wait({starting})
    await postgres.stop()
    assert running_postmaster(data_dir / "pgdata") is None
    try:
        assert await fetchval(await postgres.start(), "SELECT 1") == 1
    finally:
        await postgres.stop()


@pytest.mark.parametrize("name", ["with space", "it's 100% \"odd\", isn't it", "x" * 150, "größe"])
async def test_odd_and_long_paths_work(data_dir: Path, name: str) -> None:
    postgres = EmbeddedPostgres(data_dir / name)
    try:
        dsn = await postgres.start()
        shown = await fetchval(dsn, "SHOW data_directory")
        assert shown == str(data_dir / name / "pgdata")
    finally:
        await postgres.stop()
    assert not postgres.directory.socket_dir.exists()


async def test_a_socket_directory_of_somebody_else_is_refused(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = data_dir / "elsewhere"
    elsewhere.mkdir(parents=True)
    monkeypatch.setattr(embedded_directory, "_runtime_dir", lambda: data_dir)
    postgres = EmbeddedPostgres(data_dir / ("x" * 150))
    postgres.directory.socket_dir.symlink_to(elsewhere)
    with pytest.raises(EmbeddedPostgresError, match="somebody else"):
        await postgres.start()


async def test_a_directory_of_another_version_is_refused_and_kept(data_dir: Path) -> None:
    pgdata = data_dir / "pgdata"
    pgdata.mkdir(parents=True)
    (pgdata / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match="PostgreSQL 16"):
        await EmbeddedPostgres(data_dir).start()
    assert (pgdata / "PG_VERSION").read_text() == "16\n"


async def test_a_failing_start_tells_what_postgresql_said(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="max_connections"):
        await EmbeddedPostgres(data_dir, {"max_connections": "many"}).start()
    # The lock is free again.
    shutil.rmtree(data_dir / "pgdata")
    postgres = EmbeddedPostgres(data_dir)
    await postgres.start()
    await postgres.stop()
