"""Connections to PostgreSQL that were cut, that fell silent, that cannot be made."""

import asyncio
import math
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from agent_sessions import NO_RETRY, DatabaseUnavailable, DeadlineExceeded, Serialization, SessionClient

from tests.faults.conversations import AGENT, texts_of
from tests.faults.database import SERVERS, TERMINATE_SERVERS, query, revisions_locked, until, until_a_save_is_stuck
from tests.faults.metrics import until_started
from tests.faults.proxy import Proxy
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory

POOL_SIZE = 6
STATEMENT_TIMEOUT = 1.0
BOUND = 20.0
"""Seconds in which a call ends whose database fell silent, without any deadline of the caller: 10 to get a
connection, or 5 to open one, and the statement timeout and 2 more for an answer; and some for a busy machine."""

CROWD = 40
HELLO = conversation("hello")

CALLS: dict[str, Callable[[SessionClient], Awaitable[object]]] = {
    "save": lambda client: client.save(AGENT, "saved", HELLO, expected_revision=0),
    "save again": lambda client: client.save(AGENT, "saved", conversation("hello", "again"), expected_revision=1),
    "save unnamed": lambda client: client.save(AGENT, "", HELLO),
    "save a branch": lambda client: client.save(AGENT, "saved", conversation("hello", "other")),
    "restore": lambda client: client.restore(AGENT, "saved"),
    "get session": lambda client: client.get_session(AGENT, "saved"),
    "get revision": lambda client: client.get_revision(AGENT, "saved", revision=1),
    "describe revision": lambda client: client.get_revision(AGENT, "saved", view="basic"),
    "list sessions": lambda client: client.list_sessions(AGENT).page(),
    "list revisions": lambda client: client.list_revisions(AGENT, "saved").page(),
    "delete": lambda client: client.delete(AGENT, "saved"),
    "undelete": lambda client: client.undelete(AGENT, "saved"),
    "purge": lambda client: client.delete(AGENT, "saved", purge=True),
}


async def cut_all(database_url: str, at_least: int) -> None:
    """Terminate the connections of all servers, and wait until they are gone."""
    assert len(await query(database_url, TERMINATE_SERVERS)) >= at_least


async def fill_pool(client: SessionClient, database_url: str, connections: int) -> None:
    """Make the server open so many connections: all of its pool, and the one that saves take."""

    async def crowd() -> bool:
        await asyncio.gather(*(client.list_sessions(AGENT).page() for _ in range(CROWD)))
        await asyncio.gather(*(client.save("other", f"s{n}", HELLO) for n in range(CROWD)))
        return len(await query(database_url, SERVERS)) >= connections

    # A call that comes when another has just finished takes that one's connection.
    await until(crowd)


@pytest.mark.parametrize("asleep", [False, True], ids=["noticed", "not yet noticed"])
async def test_a_call_after_a_cut_shows_nothing(server: ServerFactory, database_url: str, asleep: bool) -> None:
    process = server(f"--pool-size={POOL_SIZE}", database_url=database_url)
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        await fill_pool(client, database_url, POOL_SIZE + 1)
        for name, call in CALLS.items():
            await client.save("other", "s0", HELLO)
            if not asleep:
                await cut_all(database_url, at_least=1)
            if asleep:
                # The call and the news of the cut then wait for the server together.
                process.signal(signal.SIGSTOP)
            calling = asyncio.ensure_future(call(client))
            await asyncio.sleep(0)
            if asleep:
                await cut_all(database_url, at_least=1)
            process.signal(signal.SIGCONT)
            answer = await calling
            assert not getattr(answer, "replayed", False), name


async def test_a_crowd_after_a_cut_shows_nothing(server: ServerFactory, database_url: str) -> None:
    process = server(f"--pool-size={POOL_SIZE}", database_url=database_url)
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        for number in range(1, 4):
            await fill_pool(client, database_url, POOL_SIZE + 1)
            await cut_all(database_url, at_least=POOL_SIZE + 1)
            saves = [client.save(AGENT, f"s{n}", conversation(str(number))) for n in range(CROWD)]
            saved = await asyncio.gather(*saves)
            assert [(one.revision.revision, one.replayed) for one in saved] == [(number, False)] * CROWD
            await cut_all(database_url, at_least=2)
            restored = await asyncio.gather(*(client.restore(AGENT, f"s{n}") for n in range(CROWD)))
            assert [texts_of(one) for one in restored] == [[str(number)]] * CROWD
    assert not [line for line in process.log if line.get("event") == "call" and line["code"] != "OK"]


@pytest.fixture
async def proxy(data_dir: Path, database_url: str) -> AsyncIterator[Proxy]:
    opened = Proxy(database_url, data_dir.parent)
    await opened.open()
    yield opened
    opened.speak()
    await opened.close()


async def test_no_call_hangs_on_a_silent_database(server: ServerFactory, proxy: Proxy, database_url: str) -> None:
    flags = ("--pool-size=10", f"--statement-timeout={STATEMENT_TIMEOUT}")
    process = await asyncio.to_thread(server, *flags, database_url=proxy.database_url)
    async with SessionClient(process.address, retry=NO_RETRY, timeout=math.inf) as client:
        await fill_pool(client, database_url, 10 + 1)
        await client.save(AGENT, "saved", HELLO)
        proxy.fall_silent()
        calls = [call(client) for call in CALLS.values()]
        hurried = [client.save(AGENT, f"hurried {n}", HELLO, timeout=1) for n in range(CROWD)]
        begin = time.monotonic()
        late = await asyncio.gather(*hurried, return_exceptions=True)
        assert time.monotonic() - begin < BOUND
        assert {type(end) for end in late} <= {DatabaseUnavailable, DeadlineExceeded}
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - begin < 2 * BOUND
        # Saves of one session take turns, and waiting for a turn is bounded, too.
        assert {type(end) for end in ends} <= {DatabaseUnavailable, Serialization}
        await asyncio.to_thread(process.wait_until_not_serving)
        proxy.speak()
        await asyncio.to_thread(process.wait_until_serving)
        assert (await client.save(AGENT, "after", HELLO, timeout=10)).revision.revision == 1


async def test_no_save_hangs_in_the_queue_of_a_silent_database(
    server: ServerFactory, proxy: Proxy, database_url: str
) -> None:
    process = await asyncio.to_thread(
        server, f"--statement-timeout={STATEMENT_TIMEOUT}", database_url=proxy.database_url
    )
    async with SessionClient(process.address, retry=NO_RETRY, timeout=math.inf, stream=False) as client:
        async with revisions_locked(database_url):
            begin = time.monotonic()
            saves = [asyncio.ensure_future(client.save(AGENT, f"s{n}", HELLO)) for n in range(CROWD)]
            await until_a_save_is_stuck(database_url)
            await until_started(process, "SaveSession", CROWD)
            proxy.fall_silent()
            ends = await asyncio.gather(*saves, return_exceptions=True)
            assert time.monotonic() - begin < BOUND
        assert {type(end) for end in ends} == {DatabaseUnavailable}
        assert all(end.retry_delay for end in ends if isinstance(end, DatabaseUnavailable))
        proxy.speak()
        await asyncio.to_thread(process.wait_until_serving)
        again = await asyncio.gather(*(client.save(AGENT, f"t{n}", HELLO, timeout=10) for n in range(CROWD)))
        assert {one.revision.revision for one in again} == {1}


async def test_a_lost_database_is_unavailable_and_comes_back(server: ServerFactory, proxy: Proxy) -> None:
    process = await asyncio.to_thread(server, database_url=proxy.database_url)
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        for number in range(1, 3):
            await client.save(AGENT, "kept", conversation(str(number)))
            await proxy.close()
            for name, call in CALLS.items():
                with pytest.raises(DatabaseUnavailable) as caught:
                    await call(client)
                assert caught.value.retry_delay is not None, name
            await asyncio.to_thread(process.wait_until_not_serving)
            await proxy.open()
            await asyncio.to_thread(process.wait_until_serving)
            assert texts_of(await client.restore(AGENT, "kept")) == [str(number)]
    assert not [line for line in process.log if line.get("event") == "call" and "exception" in line]
