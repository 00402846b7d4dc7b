"""A program: writers that save, restore, delete and undelete, until its standard input ends.

    python -m tests.soak.writers '{"addresses": [...], "first": 0, "writers": 8, "seed": 1}'

Prints one JSON object: what was acknowledged, and how often what failed.
"""

import asyncio
import json
import random
import sys
import uuid
from collections import Counter
from typing import Any

from agent_sessions import (
    InternalError,
    RetryPolicy,
    SessionClient,
    SessionDeleted,
    SessionNotDeleted,
    SessionNotFound,
)

from tests.fixtures.conversations import conversation

AGENTS = ("agent", "other agent")
SHARED = 16
"""Writers of which each two, on different servers, write to the same session, without messages, whose histories would
part each time; the others have one each."""

PATIENCE = 120.0
"""Seconds that a call may take with all its attempts: servers are killed meanwhile, and transactions rolled back."""

EXPECTED = (SessionDeleted, SessionNotDeleted, SessionNotFound, InternalError)
"""Another writer deleted the session just now; or a transaction was rolled back that nobody repeats."""


class Writer:
    """Writes to one session through one server."""

    def __init__(self, number: int, client: SessionClient, chance: random.Random) -> None:
        self.agent_id = AGENTS[number // 2 % len(AGENTS)]
        self._is_shared = number < SHARED
        self.session_name = f"shared {number // 2}" if self._is_shared else f"of {number}"
        self.saved: list[int] = []
        self.failed: Counter[str] = Counter()
        self._client = client
        self._chance = chance
        self._texts: list[str] = []
        self._is_deleted = False
        """Perhaps: by a writer whose undelete was rolled back, or is to come."""

    async def run(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                await self._do_something()
            except EXPECTED as error:
                self.failed[error.reason or error.code.name] += 1
                self._is_deleted = isinstance(error, SessionDeleted)

    async def _do_something(self) -> None:
        chance = self._chance.random()
        key = (self.agent_id, self.session_name)
        if self._is_deleted:
            self._is_deleted = False
            await self._client.undelete(*key)
        elif chance < 0.85:
            await self._save()
        elif chance < 0.97:
            await self._client.restore(*key)
        else:
            await self._client.delete(*key)
            await self._client.undelete(*key)

    async def _save(self) -> None:
        if not self._is_shared:
            self._texts = [*self._texts, str(uuid.uuid4())] if len(self._texts) < 20 else []
        saved = await self._client.save(self.agent_id, self.session_name, conversation(*self._texts))
        self.saved.append(saved.revision.revision)


async def write(task: dict[str, Any]) -> dict[str, Any]:
    """Run the writers until standard input ends; return what they report."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stopping.set)
    retry = RetryPolicy(max_backoff=0.3)
    clients = [SessionClient(address, retry=retry, timeout=PATIENCE) for address in task["addresses"]]
    writers = []
    for number in range(task["first"], task["first"] + task["writers"]):
        chance = random.Random(f"{task['seed']} {number}")  # noqa: S311 - no secret
        writers.append(Writer(number, clients[number % len(clients)], chance))
    try:
        await asyncio.gather(*(writer.run(stopping) for writer in writers))
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    failed = sum((writer.failed for writer in writers), Counter[str]())
    return {"saved": [[w.agent_id, w.session_name, w.saved] for w in writers], "failed": failed}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(write(json.loads(sys.argv[1])))))
