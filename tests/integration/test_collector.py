"""What nothing needs is removed, and nothing else is."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from agent_sessions.v1.session_pb2 import AgentState
from session_service.postgres.collector import Collector
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.model import Change, Save, Saved, SessionKey, Target, Tenant

from tests.fixtures.collecting import collect_all, collector, orphans
from tests.integration.test_storage import NOW
from tests.model.stores import content, delta, postgres_store

BIG, OTHER = {"big": "v" * 2000}, {"other": "w" * 3000}
GARBAGE = [("state_values", 1), ("suspect_values", 1)]
"""What the purge of a session with one value of its own leaves."""


class Bench:
    """A store in a database of its own."""

    def __init__(self, url: str, store: PostgresSessionStore, tenant: Tenant, owner: asyncpg.Connection) -> None:
        self.url = url
        self.store = store
        self.tenant = tenant
        self.owner = owner

    def key(self, name: str, agent: str = "ada") -> SessionKey:
        return SessionKey(self.tenant, agent, name)

    async def save(
        self, name: str, texts: str | Sequence[str], values: dict[str, str] | None = None, **more: Any
    ) -> Saved:
        agent = more.pop("agent_id", "ada")
        save = Save(self.tenant, agent, name, content(list(texts), values), "test", request_id=uuid4())
        return await self.store.save(save._replace(**more), NOW)

    async def purge(self, name: str, agent: str = "ada") -> None:
        await self.store.delete(Change(self.key(name, agent), "test", uuid4()), purge=True, now=NOW)

    async def state(self, name: str, revision: int | None = None, agent: str = "ada") -> tuple[str, dict[str, str]]:
        key, target = self.key(name, agent), Target(revision=revision)
        found = await self.store.get_revision(key, target, with_state=True, message_limit=0)
        state = AgentState.FromString(found.state or b"")
        texts = "".join(message.text for message in state.message_history)
        return texts, {name: value.data.decode() for name, value in state.values.items()}

    async def count(self, table: str) -> int:
        return int(await self.owner.fetchval(f"SELECT count(*) FROM {table}"))  # noqa: S608  constants


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    """A bench; what a test leaves must be collectable to the last row."""
    owner = await asyncpg.connect(database_url)
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Bench(database_url, store, tenant, owner)
            await collect_all(database_url)
            assert await orphans(database_url) == []
    finally:
        await owner.close()


@pytest.fixture
async def collecting(database_url: str) -> AsyncIterator[Collector]:
    async with collector(database_url) as opened:
        yield opened


async def finish(collecting: Collector) -> None:
    while await collecting.step():
        pass


async def test_a_purge_leaves_a_value_that_is_then_collected(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abc", BIG)
    assert not await collecting.step()
    await bench.purge("s")
    assert await orphans(bench.url) == GARBAGE
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.count("state_values") == 0


async def test_a_value_that_another_session_needs_is_kept(bench: Bench, collecting: Collector) -> None:
    await bench.save("s", "abc", BIG | OTHER)
    await bench.save("t", "x", BIG)
    await bench.save("t", "xy")  # only an old revision needs it
    await bench.save("s", "x", BIG | OTHER, agent_id="bob")
    await bench.purge("s")
    await finish(collecting)
    assert await orphans(bench.url) == []
    assert await bench.count("state_values") == 3
    assert await bench.state("t", 1) == ("x", BIG)
    assert await bench.state("s", agent="bob") == ("x", BIG | OTHER)
    await bench.purge("t")
    await finish(collecting)
    assert await bench.count("state_values") == 2
