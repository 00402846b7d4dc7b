"""Saves that share a stream, on a real server: also one that is killed, stopped, or falls silent."""

import asyncio
import re
import urllib.request
import uuid
from collections.abc import AsyncIterator

import pytest
from agent_sessions import (
    DeadlineExceeded,
    InvalidField,
    RequestIdReused,
    RetryPolicy,
    RevisionMismatch,
    SavedRevision,
    Session,
    SessionClient,
    State,
)

from tests.faults.conversations import AGENT
from tests.faults.database import lock_held
from tests.fixtures.servers import ServerFactory, ServerProcess
from tests.fixtures.shared_server import Database

PATIENT = RetryPolicy(initial_backoff=0.05, max_backoff=0.3)
SESSIONS = 64


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncIterator[SessionClient]:
    async with SessionClient(shared_server.address) as client:
        yield client


def calls(server: ServerProcess, method: str) -> float:
    """Return how many calls of a method the server has begun."""
    with urllib.request.urlopen(f"http://{server.ops_address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if f'grpc_method="{method}"' in line and "_started_total" in line]
    return sum(float(re.split(r"\s", line)[-1]) for line in lines)


class Appending:
    """Sessions that append numbered messages until they are told to stop."""

    def __init__(self, client: SessionClient, agent_id: str) -> None:
        self.client = client
        self.agent_id = agent_id
        self.acknowledged: dict[str, list[str]] = {}
        self.revisions: dict[str, list[int]] = {}
        self._enough = asyncio.Event()
        self._progress = asyncio.Condition()
        self._total = 0

    async def run(self, count: int = SESSIONS) -> None:
        await asyncio.gather(*(self._one(f"s{n}") for n in range(count)))

    async def _one(self, name: str) -> None:
        session: Session = self.client.session(self.agent_id, name)
        texts = self.acknowledged[name] = []
        revisions = self.revisions[name] = []
        while not self._enough.is_set():
            text = f"{name}/{len(texts)}"
            saved = await session.append([text], timeout=60)
            texts.append(text)
            revisions.append(saved.revision.revision)
            async with self._progress:
                self._total += 1
                self._progress.notify_all()

    async def wait_for_more(self, more: int) -> None:
        """Wait until so many more saves were acknowledged."""
        async with asyncio.timeout(60), self._progress:
            wanted = self._total + more
            await self._progress.wait_for(lambda: self._total >= wanted)

    def stop(self) -> None:
        self._enough.set()

    async def check(self) -> None:
        """Check that what was acknowledged is there: in order, and once."""
        for name, texts in self.acknowledged.items():
            assert self.revisions[name] == [*range(1, len(texts) + 1)]
            stored = await self.client.get_revision(self.agent_id, name)
            assert stored.decode().messages == texts
            assert stored.revision.revision == len(texts)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_server_that_goes_and_comes_back_loses_and_repeats_nothing(
    server: ServerFactory, database_url: str, agent_id: str, how: str
) -> None:
    first = await asyncio.to_thread(server, database_url=database_url)
    address = first.address
    async with SessionClient(address, retry=PATIENT) as client:
        appending = Appending(client, agent_id)
        running = asyncio.create_task(appending.run())
        await appending.wait_for_more(5 * SESSIONS)
        await asyncio.to_thread(getattr(first, how))
        second = await asyncio.to_thread(server, f"--listen={address}", database_url=database_url)
        await appending.wait_for_more(5 * SESSIONS)
        appending.stop()
        await asyncio.wait_for(running, 60)
        await appending.check()
        assert calls(second, "SaveSessions") > 0


async def test_saves_share_one_stream(shared_server: ServerProcess, client: SessionClient, agent_id: str) -> None:
    streams, unary = calls(shared_server, "SaveSessions"), calls(shared_server, "SaveSession")
    appending = Appending(client, agent_id)
    running = asyncio.create_task(appending.run())
    await appending.wait_for_more(4 * SESSIONS)
    appending.stop()
    await running
    await appending.check()
    assert calls(shared_server, "SaveSessions") == streams + 1
    assert calls(shared_server, "SaveSession") == unary


async def test_refusals_end_no_stream(shared_server: ServerProcess, client: SessionClient, agent_id: str) -> None:
    streams = calls(shared_server, "SaveSessions")
    reused = str(uuid.uuid4())
    await client.save(agent_id, "used", State(messages=["x"]), request_id=reused)
    results = await asyncio.gather(
        client.save(agent_id, "fine", State(messages=["x"])),
        client.save(agent_id, "bad\0name", State(messages=["x"])),
        client.save(agent_id, "fine too", State(messages=["x"])),
        client.save(agent_id, "missing", State(messages=["x"]), expected_revision=7),
        client.save(agent_id, "used", State(messages=["y"]), request_id=reused),
        client.save(agent_id, "fine as well", State(messages=["x"])),
        return_exceptions=True,
    )
    kinds = [SavedRevision, InvalidField, SavedRevision, RevisionMismatch, RequestIdReused, SavedRevision]
    assert [type(result) for result in results] == kinds
    invalid, mismatch = results[1], results[3]
    assert isinstance(invalid, InvalidField)
    assert isinstance(mismatch, RevisionMismatch)
    assert invalid.field == "session_name"
    assert mismatch.current_revision == 0
    await client.save(agent_id, "after", State(messages=["x"]))
    assert calls(shared_server, "SaveSessions") == streams + 1


async def test_errors_are_those_of_calls(shared_server: ServerProcess, client: SessionClient, agent_id: str) -> None:
    async with SessionClient(shared_server.address, stream=False) as unary:
        for arguments in ({"session_name": "bad\0name"}, {"session_name": "s", "expected_revision": 7}):
            told = []
            for way in (client, unary):
                with pytest.raises((InvalidField, RevisionMismatch)) as caught:
                    await way.save(agent_id, state=State(messages=["x"]), **arguments)
                error = caught.value
                told.append((type(error), error.code, error.reason, str(error), error.metadata, error.field_violations))
            assert told[0] == told[1]


async def test_a_save_that_waits_for_a_lock_keeps_to_its_timeout(
    shared_server: ServerProcess, shared_database: Database, client: SessionClient
) -> None:
    """Somebody holds one session's lock: its save times out, its neighbour's does not, and the stream lives."""
    name = f"locked-{uuid.uuid4().hex}"
    locked, free = client.session(AGENT, name), client.session(AGENT, f"{name}-not")
    await locked.append(["one"])
    await free.append(["one"])
    streams = calls(shared_server, "SaveSessions")
    async with lock_held(shared_database.dsn, name):
        with pytest.raises(DeadlineExceeded):
            await locked.append(["two"], timeout=0.5)
        await free.append(["two"], timeout=20)
    await locked.append(["three"], timeout=20)
    assert (await client.get_revision(AGENT, name)).decode().messages == ["one", "three"]
    assert calls(shared_server, "SaveSessions") == streams


async def test_a_large_save_goes_alone(shared_server: ServerProcess, client: SessionClient, agent_id: str) -> None:
    unary = calls(shared_server, "SaveSession")
    session = client.session(agent_id, "s")
    await session.append(["small"])
    large = "x" * 2_000_000
    await session.append([large])
    await session.append(["small again"])
    assert calls(shared_server, "SaveSession") == unary + 1
    assert (await client.get_revision(agent_id, "s")).decode().messages == ["small", large, "small again"]


async def test_a_lower_limit_of_the_server(server: ServerFactory, database_url: str, agent_id: str) -> None:
    process = await asyncio.to_thread(server, "--max-request-bytes=20000", database_url=database_url)
    async with SessionClient(process.address) as client:
        state = State(messages=["x" * 3_000])
        for round_ in range(3):
            await asyncio.gather(*(client.save(agent_id, f"{round_}-{n}", state) for n in range(40)))
        names = [session.session_name async for session in client.list_sessions(agent_id)]
    assert len(names) == 120
    assert calls(process, "SaveSessions") < 10
