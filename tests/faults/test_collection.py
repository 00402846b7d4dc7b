"""Servers killed while they save, purge and collect: what is needed is there, and in the end nothing else."""

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from agent_sessions import AgentState, Payload, SessionClient

from tests.faults.conversations import AGENT
from tests.faults.database import query, until
from tests.faults.metrics import until_counted, value_of
from tests.faults.workload import PATIENCE, CountedRetries
from tests.fixtures.collecting import collect_all, orphans, wrong_rows
from tests.fixtures.conversations import conversation
from tests.fixtures.figures import Tell
from tests.fixtures.servers import ServerFactory

KILLS = int(os.environ.get("COLLECTION_KILLS", "6"))
"""100 where there is time."""

SESSIONS = 6
CALLS = 20
"""Answered between two kills at least."""

LONGEST = 1.0
"""Seconds that a server then serves at most before it is killed."""

COLLECTED = 'session_service_collected_rows_total{table="state_values"}'

FREE = "UPDATE collection_state SET held_until = '-infinity', next_walk = '-infinity'"
"""Nobody waits until the dead one's turn is over, and everything is walked over again and again."""


class Purger:
    """Saves to one session, purges it, and begins anew, until told to stop; remembers what must be there."""

    def __init__(self, client: SessionClient, name: str) -> None:
        self.name = name
        self.saved: dict[int, AgentState] = {}
        self.calls = self.purges = 0
        self._client = client
        self._chance = random.Random(name)  # noqa: S311 - no secret

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if len(self.saved) > 4 and self._chance.random() < 0.6:
                await self._client.delete(AGENT, self.name, purge=True)
                self.saved = {}
                self.purges += 1
            else:
                await self.save()
            self.calls += 1

    async def save(self) -> None:
        state = self._state()
        revision = (await self._client.save(AGENT, self.name, state)).revision.revision
        assert revision not in self.saved
        self.saved[revision] = state

    def _state(self) -> AgentState:
        """Return one of few states, so that values are shared, dropped, and named again."""
        state = conversation(*(self._chance.choice("abc") for _ in range(self._chance.randrange(6))))
        for name in self._chance.sample("xyz", 2):
            state.values[name].CopyFrom(Payload(data=self._chance.choice(["v", "w", self.name]).encode() * 2000))
        return state


@pytest.mark.timeout(200 + 10 * KILLS)
async def test_servers_killed_while_they_collect(
    database_url: str, scratch: Path, server: ServerFactory, tell: Tell
) -> None:
    listen = f"--listen=unix:{scratch / 'collection'}"
    chance = random.Random(KILLS)  # noqa: S311 - no secret
    process = server(listen, "--housekeeping-budget=60", database_url=database_url)
    stopping = asyncio.Event()
    collected = 0.0
    async with SessionClient(process.address, retry=CountedRetries(), timeout=PATIENCE) as client:
        purgers = [Purger(client, f"session {number}") for number in range(SESSIONS)]
        quiet = Purger(client, "quiet")
        for _ in range(20):
            await quiet.save()
        running = asyncio.gather(*(purger.run(stopping) for purger in purgers))
        for _ in range(KILLS):
            await until_called(purgers, CALLS)
            # A moment that nothing chooses: whatever is under way then is cut off.
            await asyncio.wait({running}, timeout=chance.uniform(0, LONGEST))
            collected += await asyncio.to_thread(value_of, process, COLLECTED)
            process.kill()
            await query(database_url, FREE)
            process = await asyncio.to_thread(server, listen, "--housekeeping-budget=60", database_url=database_url)
        await until_called(purgers, CALLS)
        await until_counted(process, COLLECTED, 1, PATIENCE)
        stopping.set()
        await running
        # That which is not touched any more needs what all others name, purge, and name again.
        for purger in (quiet, *purgers):
            await assert_there(client, purger.name, purger.saved)
        purges = sum(purger.purges for purger in purgers)
        tell(f"{KILLS} kills, {purges} purges, {collected:.0f} values collected by who was killed")
        process.stop()
        await collect_all(database_url)
        assert await orphans(database_url) == []
        assert await wrong_rows(database_url) == []


async def until_called(purgers: Sequence[Purger], more: int) -> None:
    """Wait until so many further calls were answered."""
    enough = sum(purger.calls for purger in purgers) + more
    await until(lambda: sum(purger.calls for purger in purgers) >= enough, PATIENCE)


async def assert_there(client: SessionClient, name: str, saved: Mapping[int, AgentState]) -> None:
    """Make sure that every revision restores equal."""
    for revision, state in saved.items():
        found = await client.get_revision(AGENT, name, revision=revision)
        expected = AgentState(agent_id=AGENT)
        expected.MergeFrom(state)
        assert found.agent_state == expected
