"""Servers killed while they save, upload, pack, purge, collect: what is needed is there, in the end nothing else."""

import asyncio
import io
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from agent_sessions import AgentState, Message, SessionClient
from session_service.config import Settings
from session_service.postgres.cold_sessions import Rests
from session_service.postgres.packer import Packer
from session_service.postgres.pool import Database
from session_service.verify import verify

from tests.faults.conversations import AGENT
from tests.faults.database import query
from tests.faults.metrics import value_of
from tests.faults.test_collection import assert_there
from tests.faults.workload import PATIENCE, CountedRetries
from tests.fixtures.collecting import collect_all, orphans, wrong_rows
from tests.fixtures.conversations import conversation
from tests.fixtures.figures import Tell
from tests.fixtures.postgres import ROLE
from tests.fixtures.servers import ServerFactory, ServerProcess

KILLS = int(os.environ.get("HOUSEKEEPING_KILLS", "6"))
"""100 where there is time."""

MOST_KILLS = 4 * KILLS
"""If none of so many met an upload, or nothing was packed or purged: the moments are left to chance."""

SESSIONS_OF_A_KIND = 3
LONGEST = 3.0
"""Seconds that a server serves at most before it is killed."""

LARGEST_REQUEST = 1024 * 1024
"""Bytes: so that states need not be so large to be uploaded."""

FREE = (
    "UPDATE collection_state SET held_until = '-infinity', next_walk = '-infinity'",
    "UPDATE packing_state SET held_until = '-infinity', round_ended = '-infinity'",
    # The deadline of an upload that was cut off passes at once.
    "UPDATE transcripts SET upload_deadline = now() - interval '2 minutes' WHERE upload_deadline IS NOT NULL",
)
"""Nobody waits until the dead one's turn is over."""

BROKEN = "SELECT count(*) FROM transcripts WHERE upload_deadline IS NOT NULL"

METRICS = {
    "messages saved": "session_service_saved_messages_total",
    "messages packed": "session_service_packed_messages_total",
    "segments collected": 'session_service_collected_rows_total{table="transcript_segments"}',
}


class Author:
    """Writes one session in its own way until told to stop; remembers what must be there."""

    def __init__(self, client: SessionClient, name: str) -> None:
        self.name = name
        self.saved: dict[int, AgentState] = {}
        self.purges = 0
        self.client = client
        self.chance = random.Random(name)  # noqa: S311 - no secret

    async def run(self, stopping: asyncio.Event, write: "Callable[[Author], Awaitable[None]]") -> None:
        while not stopping.is_set():
            await write(self)
            if len(self.saved) > 40 and self.chance.random() < 0.2:
                await self.client.delete(AGENT, self.name, purge=True)
                self.saved = {}
                self.purges += 1

    async def save(self, state: AgentState) -> None:
        # An upload has to begin anew each time, and meets many servers that are killed before it has ended.
        revision = (await self.client.save(AGENT, self.name, state, timeout=10 * PATIENCE)).revision.revision
        assert revision not in self.saved
        self.saved[revision] = state

    def text(self) -> str:
        return "".join(self.chance.choice("abcdefgh") for _ in range(self.chance.randrange(400)))


async def append(author: Author) -> None:
    """Add a few messages, one by one, and begin anew now and then."""
    session = author.client.session(AGENT, author.name)
    if author.saved:
        await session.load(timeout=PATIENCE)
    so_far = author.saved.get(session.revision, conversation())
    for _ in range(10):
        so_far = AgentState.FromString(so_far.SerializeToString())
        message = Message(text=author.text())
        so_far.message_history.append(message)
        saved = await session.append([message], timeout=PATIENCE)
        author.saved[saved.revision.revision] = so_far


async def edit(author: Author) -> None:
    """Save whole states that part from the last one somewhere."""
    last = author.saved[max(author.saved)] if author.saved else AgentState()
    texts = [message.text for message in last.message_history]
    kept = texts[: author.chance.randrange(len(texts) + 1)]
    await author.save(conversation(*kept, *(author.text() for _ in range(8))))


async def upload(author: Author) -> None:
    """Save states that are larger than a request, and mostly longer than the last one."""
    last = author.saved[max(author.saved)] if author.saved else AgentState()
    texts = [message.text for message in last.message_history]
    if len(texts) > 500:
        texts = texts[: author.chance.randrange(200)]
    # Some segments' worth: what is less is written by the transaction that makes the revision.
    state = conversation(*texts, *(author.chance.randbytes(4000).hex() for _ in range(400)))
    await author.save(state)
    if len(author.saved) > 3:
        await author.client.delete(AGENT, author.name, purge=True)
        author.saved = {}
        author.purges += 1


WAYS = (append, edit, upload)


@pytest.mark.timeout(150 + 8 * MOST_KILLS)
async def test_servers_killed_at_their_housekeeping(
    database_url: str, scratch: Path, server: ServerFactory, tell: Tell
) -> None:
    flags = ("--housekeeping-budget=60", "--pack-after=0", f"--max-request-bytes={LARGEST_REQUEST}")
    listen = f"--listen=unix:{scratch / 'housekeeping'}"
    chance = random.Random(KILLS)  # noqa: S311 - no secret
    process = server(listen, *flags, database_url=database_url)
    stopping = asyncio.Event()
    done = dict.fromkeys(METRICS, 0.0)
    broken = kills = 0
    async with SessionClient(process.address, retry=CountedRetries(), timeout=PATIENCE) as client:
        authors = [
            (Author(client, f"{way.__name__} {number}"), way) for way in WAYS for number in range(SESSIONS_OF_A_KIND)
        ]
        running = asyncio.gather(*(author.run(stopping, way) for author, way in authors))
        while kills < KILLS or (kills < MOST_KILLS and not (broken and done["messages packed"] and _purges(authors))):
            kills += 1
            # A moment that nothing chooses: whatever is under way then is cut off.
            await asyncio.wait({running}, timeout=chance.uniform(0, LONGEST))
            await asyncio.to_thread(_count, process, done)
            process.kill()
            broken += (await query(database_url, BROKEN))[0][0]
            for free in FREE:
                await query(database_url, free)
            process = await asyncio.to_thread(server, listen, *flags, database_url=database_url)
        stopping.set()
        await running
        for author, _ in authors:
            await assert_there(client, author.name, author.saved)
        process.stop()
        for free in FREE:
            await query(database_url, free)
        await pack_all(database_url)
        await collect_all(database_url)
        assert await orphans(database_url) == []
        assert await wrong_rows(database_url) == []
        said = io.StringIO()
        assert await verify(Settings(database_url=database_url, database_role=ROLE), said), said.getvalue()
        process = await asyncio.to_thread(server, listen, *flags, database_url=database_url)
        for author, _ in authors:
            await assert_there(client, author.name, author.saved)
    purges, revisions = _purges(authors), sum(len(a.saved) for a, _ in authors)
    tell(f"{kills} kills: {done}, {broken} uploads broken off, {purges} purges; {revisions} revisions compared")
    assert min(done["messages saved"], done["messages packed"], broken, purges) > 0


def _purges(authors: "Sequence[tuple[Author, Callable[[Author], Awaitable[None]]]]") -> int:
    return sum(author.purges for author, _ in authors)


def _count(process: ServerProcess, done: dict[str, float]) -> None:
    for name, metric in METRICS.items():
        done[name] += value_of(process, metric)


async def pack_all(database_url: str) -> None:
    """Pack everything, whoever was at it before."""
    database = await Database.connect(database_url, role=ROLE, pool_size=2)
    try:
        assert await Packer(database, Rests(0, 0), take_over=True).finish() == 0
    finally:
        await database.close()
