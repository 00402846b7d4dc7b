"""An open transaction elsewhere: what comes after its first write waits until it ends, and nothing is lost."""

import asyncio
import re
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from agent_sessions import SessionClient

from tests.faults.conversations import AGENT
from tests.faults.database import connected, query, until
from tests.faults.metrics import until_counted, value_of
from tests.faults.watcher import Watcher
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory

HANDBOOK = Path(__file__).parents[2] / "docs" / "operations.md"
AGE = "session_service_event_watermark_age_seconds"
RESTORES = 20
SERVERS = 2
FLAGS = ("--watch-bookmark-interval=0.05", "--event-poll-interval=0.05")


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_events_after_an_open_write_come_when_it_has_ended(
    server: ServerFactory, database_url: str, postgres_url: str, end: str
) -> None:
    start = [asyncio.to_thread(server, *FLAGS, database_url=database_url) for _ in range(SERVERS)]
    processes = await asyncio.gather(*start)
    addresses = [process.address for process in processes]
    async with (
        SessionClient(addresses[0]) as client,
        SessionClient(addresses[1]) as other,
        Watcher(addresses[:1]) as here,
        Watcher(addresses[1:]) as there,
        connected(postgres_url) as holder,
    ):
        await client.save(AGENT, "s", conversation("hello"))
        for watcher in (here, there):
            await watcher.until_received(1)
        await write_and_stay(holder)
        await until(partial(is_found, database_url, holder.get_server_pid()))
        for number in range(RESTORES):
            await (client, other)[number % 2].restore(AGENT, "s")
        await asyncio.gather(*(until_counted(process, AGE, 0.5) for process in processes))
        # Bookmarks come all the while: the watches are alive, and have nothing to tell.
        async with Watcher(addresses) as late:
            for watcher in (here, there, late):
                await watcher.until_silent()
            assert [len(watcher.received) for watcher in (here, there, late)] == [1, 1, 0]
            tokens = [watcher.token for watcher in (here, there)]
            await holder.execute(end)
            for watcher in (here, there):
                await watcher.until_received(1 + RESTORES)
            await client.restore(AGENT, "s")
            for watcher in (here, there):
                await watcher.until_received(2 + RESTORES)
            await late.until_received(1)
        assert ids(late) == ids(here)[-1:], "what had been committed before is no news"
        for token in tokens:
            async with Watcher(addresses, token=token) as resumed:
                await resumed.until_received(1 + RESTORES)
                assert ids(resumed) == ids(here)[1:]
    assert ids(here) == ids(there) == await logged(database_url)
    await until(lambda: value_of(processes[0], AGE) == 0)


async def write_and_stay(holder: asyncpg.Connection) -> None:
    """Write something, somewhere in the cluster, in a transaction that stays open."""
    await holder.execute("SET idle_in_transaction_session_timeout = 0; BEGIN; CREATE TABLE written ()")


async def is_found(database_url: str, pid: int) -> bool:
    """Tell whether what the handbook says to ask finds a transaction, before all others."""
    asked = re.search(r"```sql\n(SELECT pid.*?);\n", HANDBOOK.read_text(), re.DOTALL)
    assert asked
    found = await query(database_url, asked[1])
    return bool(found) and found[0]["pid"] == pid


async def logged(database_url: str) -> list[str]:
    async with connected(database_url) as connection:
        rows = await connection.fetch("SELECT event_id::text FROM session_events ORDER BY xid, seq")
    return [row["event_id"] for row in rows]


def ids(watcher: Watcher) -> list[str]:
    return [one.event_id for one in watcher.received]


@pytest.fixture
def postgres_url(empty_database_url: str) -> str:
    """Return the URL of another database of the same cluster."""
    return empty_database_url
