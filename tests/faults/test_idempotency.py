"""The same request_id again: the first answer, one event, whoever is asked and whatever has happened since."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from uuid import UUID

import pytest
from agent_sessions import AgentState, RequestIdReused, SessionClient
from session_service.sessions.model import Tenant
from session_service.sessions.placement import naming_lock_key

from tests.faults.conversations import AGENT, texts_of
from tests.faults.database import HeldLock, connected, lock_of, query, until
from tests.faults.metrics import started, until_started
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory, ServerProcess
from tests.fixtures.shared_server import Database

FIRST, OTHER = conversation("first"), conversation("other")
EVENTS = "SELECT count(*) FROM session_events WHERE request_id = $1"


@pytest.fixture(scope="module")
def servers(shared_database: Database) -> Iterator[list[ServerProcess]]:
    """Return two servers on one database, which the tests share."""
    with closing(ServerFactory(measured=False)) as factory:
        yield [factory(database_url=shared_database.dsn) for _ in range(2)]


@pytest.fixture
def database_url(emptied_database: Database) -> str:
    """Return the URL of that database, without any session."""
    return emptied_database.dsn


@pytest.fixture
async def clients(servers: list[ServerProcess], database_url: str) -> AsyncIterator[list[SessionClient]]:
    opened = [SessionClient(process.address) for process in servers]
    yield opened
    for client in opened:
        await client.close()


async def events(database_url: str, request_id: str) -> int:
    return int((await query(database_url, EVENTS, UUID(request_id)))[0][0])


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize("name", ["named", ""], ids=["named", "server-named"])
async def test_a_save_is_replayed_by_another_server_and_after_a_restart(
    server: ServerFactory, database_url: str, clients: list[SessionClient], name: str
) -> None:
    request_id = new_id()
    stopped = await asyncio.to_thread(server, database_url=database_url)
    async with SessionClient(stopped.address) as client:
        first = await client.save(AGENT, name, FIRST, request_id=request_id)
        found = first.session.session_name
        await client.save(AGENT, found, OTHER)
    await asyncio.to_thread(stopped.stop)
    restarted = await asyncio.to_thread(server, database_url=database_url)
    async with SessionClient(restarted.address) as client:
        for asked in (client, *clients):
            again = await asked.save(AGENT, name, FIRST, request_id=request_id)
            assert (again.replayed, again.revision) == (True, first.revision)
            assert (again.session.session_name, again.session.head_revision) == (found, 2)
        assert [one.session_name async for one in client.list_sessions(AGENT)] == [found]
    assert await events(database_url, request_id) == 1


@pytest.mark.parametrize("name", ["named", ""], ids=["named", "server-named"])
@pytest.mark.parametrize("other", [0, 1], ids=["same server", "other server"])
async def test_a_retry_that_overlaps_is_one_save(
    database_url: str, servers: list[ServerProcess], clients: list[SessionClient], name: str, other: int
) -> None:
    request_id = new_id()
    key = lock_of(name) if name else naming_lock_key(Tenant(0, "default", b""), AGENT, UUID(request_id))
    async with connected(database_url) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", key)
        held = HeldLock(connection, key)
        before = {process: await started(process, "SaveSession") for process in servers}
        both = [
            asyncio.ensure_future(client.save(AGENT, name, FIRST, request_id=request_id))
            for client in (clients[0], clients[other])
        ]
        for process in {servers[0], servers[other]}:
            await until_started(process, "SaveSession", before[process] + (1 if other else 2))
        await until(held.waiting)
        assert not [task for task in both if task.done()]
        await held.release()
        one, two = await asyncio.gather(*both)
    assert one.revision == two.revision
    assert one.session.session_name == two.session.session_name
    assert {one.replayed, two.replayed} == {True, False}
    assert await events(database_url, request_id) == 1
    assert len(await query(database_url, "SELECT FROM sessions")) == 1


DIFFERENT: dict[str, Callable[[SessionClient, str], Awaitable[object]]] = {
    "messages": lambda client, one: client.save(AGENT, "s", OTHER, request_id=one),
    "more messages": lambda client, one: client.save(AGENT, "s", conversation("first", "second"), request_id=one),
    "state": lambda client, one: client.save(AGENT, "s", _thinking(), request_id=one),
    "labels": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, labels={"a": "b"}),
    "no labels": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, labels={}),
    "metadata": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, metadata={"a": "b"}),
    "user": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, user_id="u"),
    "checkpoint": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, checkpoint_id="c"),
    "precondition": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, expected_revision=0),
    "self-contained": lambda client, one: client.save(AGENT, "s", FIRST, request_id=one, self_contained=True),
}


def _thinking() -> AgentState:
    state = conversation("first")
    state.loop_state = "LOOP_STATE_THINKING"  # type: ignore[assignment]  # protobuf takes the name, too
    return state


async def test_other_content_is_refused(clients: list[SessionClient]) -> None:
    request_id = new_id()
    await clients[0].save(AGENT, "s", FIRST, request_id=request_id)
    for what, different in DIFFERENT.items():
        for client in clients:
            ends = await asyncio.gather(different(client, request_id), return_exceptions=True)
            assert isinstance(ends[0], RequestIdReused), what
    assert (await clients[0].get_session(AGENT, "s")).head_revision == 1
    assert (await clients[0].save(AGENT, "s", FIRST, request_id=request_id)).replayed


async def test_a_save_is_replayed_before_anything_else_is_looked_at(
    database_url: str, clients: list[SessionClient]
) -> None:
    first, second = clients
    blind, conditional = new_id(), new_id()
    one = await first.save(AGENT, "s", FIRST, request_id=conditional, expected_revision=0, checkpoint_id="c")
    two = await first.save(AGENT, "s", OTHER, request_id=blind)
    for n in range(20):  # far beyond what a look at the newest revisions would find
        await first.save(AGENT, "s", conversation(str(n)), user_id="somebody")
    await first.delete(AGENT, "s")
    again = await second.save(AGENT, "s", FIRST, request_id=conditional, expected_revision=0, checkpoint_id="c")
    assert (again.replayed, again.revision) == (True, one.revision)
    again = await second.save(AGENT, "s", OTHER, request_id=blind)
    assert (again.replayed, again.revision) == (True, two.revision)
    assert again.session.HasField("delete_time")
    assert [await events(database_url, one) for one in (blind, conditional)] == [1, 1]


async def test_a_restore_is_replayed(database_url: str, clients: list[SessionClient]) -> None:
    first, second = clients
    request_id = new_id()
    await first.save(AGENT, "s", FIRST)
    assert texts_of(await first.restore(AGENT, "s", request_id=request_id)) == ["first"]
    await first.save(AGENT, "s", OTHER)
    again = await second.restore(AGENT, "s", request_id=request_id)
    assert (again.revision.revision, texts_of(again)) == (1, ["first"])
    with pytest.raises(RequestIdReused):
        await second.restore(AGENT, "s", revision=2, request_id=request_id)
    await first.delete(AGENT, "s")
    assert texts_of(await second.restore(AGENT, "s", request_id=request_id)) == ["first"]
    assert await events(database_url, request_id) == 1


async def test_a_delete_and_an_undelete_are_replayed(database_url: str, clients: list[SessionClient]) -> None:
    first, second = clients
    deletion, return_ = new_id(), new_id()
    await first.save(AGENT, "s", FIRST)
    assert (await first.delete(AGENT, "s", request_id=deletion, expected_revision=1)).HasField("delete_time")
    assert (await second.delete(AGENT, "s", request_id=deletion, expected_revision=1)).HasField("delete_time")
    assert not (await first.undelete(AGENT, "s", request_id=return_)).HasField("delete_time")
    await first.save(AGENT, "s", OTHER)
    # It does not delete again what was brought back, and does not look at the revision.
    assert not (await second.delete(AGENT, "s", request_id=deletion, expected_revision=1)).HasField("delete_time")
    await first.delete(AGENT, "s")
    assert (await second.undelete(AGENT, "s", request_id=return_)).HasField("delete_time")
    with pytest.raises(RequestIdReused):
        await second.delete(AGENT, "s", request_id=deletion, purge=True)
    assert [await events(database_url, one) for one in (deletion, return_)] == [1, 1]


async def test_a_purge_is_replayed_and_spares_the_next_of_that_name(
    database_url: str, clients: list[SessionClient]
) -> None:
    first, second = clients
    request_id = new_id()
    await first.save(AGENT, "s", FIRST)
    await first.delete(AGENT, "s", purge=True, request_id=request_id)
    again = await second.delete(AGENT, "s", purge=True, request_id=request_id)
    assert (again.session_name, again.head_revision) == ("s", 1)
    new = await first.save(AGENT, "s", OTHER)
    await second.delete(AGENT, "s", purge=True, request_id=request_id)
    assert (await first.get_session(AGENT, "s")).uid == new.session.uid
    assert await events(database_url, request_id) == 1


CHANGES: dict[str, Callable[[SessionClient, str], Awaitable[object]]] = {
    "restore": lambda client, one: client.restore(AGENT, "s", request_id=one),
    "delete": lambda client, one: client.delete(AGENT, "s", request_id=one),
    "purge": lambda client, one: client.delete(AGENT, "s", purge=True, request_id=one),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_changes_that_overlap_are_one(
    database_url: str, clients: list[SessionClient], change: Callable[[SessionClient, str], Awaitable[object]]
) -> None:
    request_id, key = new_id(), lock_of("s")
    await clients[0].save(AGENT, "s", FIRST)
    async with connected(database_url) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", key)
        held = HeldLock(connection, key)
        calls = [asyncio.ensure_future(change(client, request_id)) for client in clients]
        await until(lambda: _both_wait(held))
        await held.release()
        await asyncio.gather(*calls)
    assert await events(database_url, request_id) == 1


async def _both_wait(held: HeldLock) -> bool:
    return await held.waiting() == 2
