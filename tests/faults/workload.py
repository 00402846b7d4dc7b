"""Writers that save without pause and remember what they were promised."""

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from agent_sessions import RetryPolicy, SessionClient

from tests.faults.conversations import AGENT
from tests.fixtures.conversations import conversation

PATIENCE = 60.0
"""Seconds that a save may take with all its attempts: a kill and a recovery lie in between."""


@dataclass(frozen=True)
class CountedRetries(RetryPolicy):
    """The client's own policy, which counts the attempts that failed."""

    max_backoff: float = 0.3
    failed: list[int] = field(default_factory=list)

    def backoff(self, attempts: int) -> float:
        self.failed.append(attempts)
        return super().backoff(attempts)


@dataclass(frozen=True)
class Promise:
    """An answer to a save."""

    session_name: str
    revision: int
    request_id: uuid.UUID
    texts: list[str]
    replayed: bool


class Workload:
    """Saves to a few sessions, two writers each, until `stop`."""

    def __init__(self, address: str, sessions: int) -> None:
        self.retries = CountedRetries()
        self.promises: list[Promise] = []
        self.in_flight = 0
        self._client = SessionClient(address, retry=self.retries, timeout=PATIENCE)
        self._changed = asyncio.Condition()
        self._stopping = False
        self._writers = [
            asyncio.create_task(self._write(f"session {n}", writer)) for n in range(sessions) for writer in ("a", "b")
        ]

    async def until_promised(self, more: int) -> None:
        """Wait for so many further answers. Raises what a writer died of."""
        total = len(self.promises) + more
        await self._until(lambda: len(self.promises) >= total)

    async def until_in_flight(self, saves: int) -> None:
        """Wait until so many saves are sent and not answered; they still are when this returns."""
        await self._until(lambda: self.in_flight >= saves)

    async def stop(self) -> None:
        """Let what is in flight finish. Raises what a writer died of."""
        self._stopping = True
        try:
            await asyncio.gather(*self._writers)
        finally:
            await self._client.close()

    @property
    def replays(self) -> int:
        """How many answers told of a revision that an earlier attempt had stored."""
        return sum(promise.replayed for promise in self.promises)

    def by_session(self) -> dict[str, dict[int, Promise]]:
        """Return the promises by session and revision; two for one revision are a twin."""
        found: dict[str, dict[int, Promise]] = defaultdict(dict)
        for promise in self.promises:
            assert promise.revision not in found[promise.session_name], f"promised twice: {promise}"
            found[promise.session_name][promise.revision] = promise
        return found

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(lambda: condition() or any(map(asyncio.Task.done, self._writers)))
        if not condition():
            await asyncio.gather(*(task for task in self._writers if task.done()))

    async def _write(self, session_name: str, writer: str) -> None:
        texts: list[str] = []
        while not self._stopping:
            # Every 20th begins anew, so that the histories of the two part, and part again.
            texts = [*texts, f"{writer} says {uuid.uuid4()}"] if len(texts) < 20 else []
            await self._counted(self._save(session_name, list(texts)))

    async def _counted(self, saving: Awaitable[Promise]) -> None:
        self.in_flight += 1
        await self._tell()
        try:
            self.promises.append(await saving)
        finally:
            self.in_flight -= 1
            await self._tell()

    async def _save(self, session_name: str, texts: list[str]) -> Promise:
        request_id = uuid.uuid4()
        saved = await self._client.save(AGENT, session_name, conversation(*texts), request_id=str(request_id))
        return Promise(session_name, saved.revision.revision, request_id, texts, saved.replayed)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
