"""A session that somebody else holds: who waits, who does not, and how the wait ends."""

import asyncio
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing

import pytest
from agent_sessions import NO_RETRY, DeadlineExceeded, Serialization, SessionClient, ShuttingDown

from tests.faults.conversations import AGENT, texts_of
from tests.faults.database import HeldLock, lock_held, query, revisions_locked, until, until_a_save_is_stuck
from tests.faults.metrics import started, until_started
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory, ServerProcess
from tests.fixtures.shared_server import Database

POOL_SIZE = 10
CROWD = 2 * POOL_SIZE
Crowd = Callable[[SessionClient, str, int], Awaitable[object]]

CROWDS: dict[str, Crowd] = {
    "saves to many": lambda client, agent_id, n: client.save(agent_id, f"busy {n}", conversation("more")),
    "saves to one": lambda client, agent_id, _: client.save(agent_id, "busy 0", conversation("more")),
    "restores of one": lambda client, agent_id, _: client.restore(agent_id, "busy 0"),
    "deletes of one": lambda client, agent_id, _: client.delete(agent_id, "busy 0"),
    "purges of one": lambda client, agent_id, _: client.delete(agent_id, "busy 0", purge=True),
    "purges of many": lambda client, agent_id, n: client.delete(agent_id, f"busy {n}", purge=True),
}


@pytest.fixture(scope="module")
def process(shared_database: Database) -> Iterator[ServerProcess]:
    """Return a server that the tests share; two stop one of their own."""
    with closing(ServerFactory(measured=False)) as factory:
        yield factory(f"--pool-size={POOL_SIZE}", database_url=shared_database.dsn)


@pytest.mark.parametrize("crowd", CROWDS.values(), ids=CROWDS.keys())
async def test_others_do_not_wait(
    process: ServerProcess, shared_database: Database, agent_id: str, crowd: Crowd
) -> None:
    async with SessionClient(process.address, retry=NO_RETRY) as client, AsyncExitStack() as stack:
        for n in range(CROWD):
            await client.save(agent_id, f"busy {n}", conversation("first"))
        locks = [
            await stack.enter_async_context(lock_held(shared_database.dsn, f"busy {n}", agent_id)) for n in range(CROWD)
        ]
        waiting = [asyncio.ensure_future(crowd(client, agent_id, n)) for n in range(CROWD)]
        await until(lambda: _anybody_waits(locks))
        others = [client.save(agent_id, f"free {n}", conversation("hello")) for n in range(CROWD)]
        saved = await asyncio.gather(*others)
        await client.restore(agent_id, "free 0")
        assert not [task for task in waiting if task.done()], "the others came after, not beside the wait"
        assert [one.revision.revision for one in saved] == [1] * CROWD
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_wait_ends_with_serialization(
    process: ServerProcess, shared_database: Database, agent_id: str
) -> None:
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        await client.save(agent_id, "busy", conversation("first"))
        async with lock_held(shared_database.dsn, "busy", agent_id):
            begin = time.monotonic()
            calls: Sequence[Awaitable[object]] = (
                client.save(agent_id, "busy", conversation("first", "second")),
                client.restore(agent_id, "busy"),
                client.delete(agent_id, "busy"),
                client.delete(agent_id, "busy", purge=True),
                client.undelete(agent_id, "busy"),
            )
            ends = await asyncio.gather(*calls, return_exceptions=True)
            took = time.monotonic() - begin
        for end in ends:
            assert isinstance(end, Serialization), end
            assert end.retry_delay is not None
        assert 4 < took < 20, "the lock timeout is 5 s, and nobody waits for the others' as well"
        # Nobody who gave up changes anything later.
        assert (await client.get_session(agent_id, "busy")).head_revision == 1
        assert (await client.save(agent_id, "busy", conversation("first", "third"))).revision.revision == 2


async def test_a_crowd_at_one_session_waits_no_longer_than_one(
    process: ServerProcess, shared_database: Database, agent_id: str
) -> None:
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        await client.save(agent_id, "busy", conversation("first"))
        async with lock_held(shared_database.dsn, "busy", agent_id):
            begin = time.monotonic()
            saves = [client.save(agent_id, "busy", conversation("first", str(n))) for n in range(CROWD)]
            restores = [client.restore(agent_id, "busy") for _ in range(CROWD)]
            ends = await asyncio.gather(*saves, *restores, return_exceptions=True)
        assert time.monotonic() - begin < 30
        assert {type(end) for end in ends} == {Serialization}


async def test_the_wait_succeeds_when_the_lock_is_released(
    process: ServerProcess, shared_database: Database, agent_id: str
) -> None:
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        await client.save(agent_id, "busy", conversation("first"))
        async with lock_held(shared_database.dsn, "busy", agent_id) as held:
            before = await started(process, "RestoreSession")
            saving = asyncio.ensure_future(client.save(agent_id, "busy", conversation("first", "second")))
            restoring = asyncio.ensure_future(client.restore(agent_id, "busy", revision=1))
            await until_started(process, "RestoreSession", before + 1)
            await until(held.waiting)
            assert not saving.done()
            assert not restoring.done()
            await held.release()
            assert (await saving).revision.revision == 2
            assert texts_of(await restoring) == ["first"]


async def test_a_deadline_ends_one_wait_only(process: ServerProcess, shared_database: Database, agent_id: str) -> None:
    async with SessionClient(process.address, retry=NO_RETRY) as client:
        await client.save(agent_id, "busy", conversation("first"))
        request_id = str(uuid.uuid4())
        late = conversation("first", "late")
        async with lock_held(shared_database.dsn, "busy", agent_id) as held:
            hurried = asyncio.ensure_future(client.save(agent_id, "busy", late, request_id=request_id, timeout=3))
            await until(held.waiting)
            patient = asyncio.ensure_future(client.save(agent_id, "busy", conversation("first", "patient")))
            with pytest.raises(DeadlineExceeded):
                await hurried
            assert not patient.done()
            await until(held.waiting)
            await held.release()
            assert texts_of(
                await client.get_revision(agent_id, "busy", revision=(await patient).revision.revision)
            ) == [
                "first",
                "patient",
            ]
        again = await client.save(agent_id, "busy", late, request_id=request_id)
        assert texts_of(await client.get_revision(agent_id, "busy", revision=again.revision.revision)) == [
            "first",
            "late",
        ]
        assert (await client.get_session(agent_id, "busy")).head_revision == 3


async def test_a_cancelled_caller_harms_no_neighbour(server: ServerFactory, database_url: str) -> None:
    process = server(database_url=database_url)
    async with SessionClient(process.address, retry=NO_RETRY, stream=False) as client:
        async with revisions_locked(database_url):
            saves = [
                asyncio.ensure_future(client.save(AGENT, f"s{n}", conversation("hello"), request_id=_request_id(n)))
                for n in range(CROWD)
            ]
            await until_a_save_is_stuck(database_url)
            await until_started(process, "SaveSession", CROWD)
            for task in saves[::2]:
                task.cancel()
            await until(lambda: _ended(process.log, "CANCELLED") == CROWD / 2)
        assert [(await task).revision.revision for task in saves[1::2]] == [1] * (CROWD // 2)
        # Whether a cancelled save was stored or not: its retry finds exactly one revision.
        for n in range(CROWD):
            again = await client.save(AGENT, f"s{n}", conversation("hello"), request_id=_request_id(n))
            assert again.revision.revision == again.session.head_revision == 1


async def test_a_graceful_stop_stores_what_is_in_flight(server: ServerFactory, database_url: str) -> None:
    process = server(database_url=database_url)
    async with SessionClient(process.address, retry=NO_RETRY, stream=False) as client:
        async with revisions_locked(database_url):
            saves = [asyncio.ensure_future(client.save(AGENT, f"s{n}", conversation(str(n)))) for n in range(CROWD)]
            await until_a_save_is_stuck(database_url)
            await until_started(process, "SaveSession", CROWD)
            process.signal(signal.SIGTERM)
            draining = await asyncio.to_thread(process.wait_for_event, "draining")
            assert draining["calls"] == CROWD
            assert not [task for task in saves if task.done()]
            # A call over the open connection is told why it is refused, so that a client tries another server.
            with pytest.raises(ShuttingDown):
                await client.get_session(AGENT, "s0")
        assert [(await task).revision.revision for task in saves] == [1] * CROWD
        assert await asyncio.to_thread(process.wait) == 0
    successor = await asyncio.to_thread(server, database_url=database_url)
    async with SessionClient(successor.address) as client:
        assert [texts_of(await client.restore(AGENT, f"s{n}")) for n in range(CROWD)] == [
            [str(n)] for n in range(CROWD)
        ]
    assert len(await query(database_url, "SELECT FROM revisions")) == CROWD


async def _anybody_waits(locks: Sequence[HeldLock]) -> bool:
    """Tell whether a server waits for one of these; for which of them first, is its own business."""
    return any([await lock.waiting() for lock in locks])


def _request_id(n: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))


def _ended(log: Sequence[dict[str, object]], code: str) -> int:
    return len([line for line in log if line.get("event") == "call" and line.get("code") == code])
