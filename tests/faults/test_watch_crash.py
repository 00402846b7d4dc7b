"""PostgreSQL dies under live watches: what happens afterwards is delivered, whatever numbers it gets."""

import asyncio
import os
import signal
from pathlib import Path

import asyncpg
import psutil
from agent_sessions import SessionClient
from session_service.postgres.embedded import running_postmaster

from tests.faults.conversations import AGENT
from tests.faults.database import connected, until
from tests.faults.watcher import Watcher
from tests.faults.workload import PATIENCE, CountedRetries
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory

FLUSHERS = ("walwriter", "background writer", "checkpointer")
"""PostgreSQL's processes that write its log to the disk by themselves."""

ROLLED_BACK = 200
ROUNDS = 10
FLAGS = ("--watch-bookmark-interval=0.05", "--event-poll-interval=0.02")
NEXT_XID = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint"


async def test_transaction_ids_used_again_after_a_crash_lose_no_event(server: ServerFactory, data_dir: Path) -> None:
    """Of transactions that were rolled back shortly before a crash nothing is left: their ids are given out again."""
    process = await asyncio.to_thread(server, *FLAGS, data_dir=data_dir)
    url = str(process.wait_for_event("PostgreSQL is embedded")["url"])
    retrying = SessionClient(process.address, retry=CountedRetries(), timeout=PATIENCE)
    async with retrying as client, Watcher([process.address]) as early:
        await client.save(AGENT, "s", conversation("hello"))
        for number in range(1, ROUNDS + 1):
            await early.until_received(2 * number - 1)
            cluster = PausedCluster(data_dir)
            used = await use_up_ids(url)
            async with Watcher([process.address]) as late:
                for watcher in (early, late):
                    await watcher.until_silent()  # it has heard of how far the ids are
                cluster.kill()
                is_used_again = await until(lambda: next_xid(url)) < used
                # Takes the next id, so it is of those that are used again.
                await client.restore(AGENT, "s")
                await late.until_received(1)
                await client.save(AGENT, "s", conversation("hello", str(number)))
                await late.until_received(2)
            await early.until_received(2 * number + 1)
            if is_used_again:
                break
        else:
            raise AssertionError("PostgreSQL gave no id out again")
    assert len({one.event_id for one in early.received}) == len(early.received)


class PausedCluster:
    """A PostgreSQL in which nothing reaches the disk but with the commits that wait for it."""

    def __init__(self, data_dir: Path) -> None:
        found = running_postmaster(data_dir / "pgdata")
        assert found is not None
        self._postmaster = found
        self._family = found.children()
        for one in self._family:
            if any(name in " ".join(one.cmdline()) for name in FLUSHERS):
                one.suspend()

    def kill(self) -> None:
        """SIGKILL to all of it."""
        os.kill(self._postmaster.pid, signal.SIGKILL)
        for one in self._family:
            one.kill()
        psutil.wait_procs(self._family)


async def use_up_ids(url: str) -> int:
    """Give ids to transactions that are rolled back; return the one after them."""
    async with connected(url) as connection:
        for _ in range(ROLLED_BACK):
            await connection.execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK")
        return int(await connection.fetchval(NEXT_XID))


async def next_xid(url: str) -> int | None:
    """Return the number of the next transaction; None while PostgreSQL is away."""
    try:
        async with connected(url) as connection:
            return int(await connection.fetchval(NEXT_XID))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return None
