"""Watchers that stop reading: they cost little and delay nobody, and lose nothing that the log still has."""

import asyncio
import base64
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import psutil
from agent_sessions import SessionClient

from tests.faults.clusters import Cluster
from tests.faults.conversations import AGENT
from tests.faults.database import query
from tests.faults.metrics import until_counted, value_of
from tests.faults.watcher import FRUGAL, Watcher, info_of
from tests.fixtures.conversations import conversation
from tests.fixtures.figures import Tell
from tests.fixtures.servers import ServerFactory

EVENTS = 2000
"""Some hundred KiB: more than fits into a watch's queue and on its way."""

CROWD = 20
MOST_MEMORY = 32 << 20
"""Bytes by which a server may grow with all of them: 256 events wait for each, and its part of the transport's."""

DRAIN_TIMEOUT = 8.0
SLOW_DROPS = 'session_service_watch_drops_total{reason="slow"}'
SLOW_REPLAYS = 'session_service_watch_replays_total{reason="slow"}'
TRIM = """
    UPDATE log_state SET (horizon_xid, horizon_seq) = (
        SELECT xid, seq FROM session_events ORDER BY xid DESC, seq DESC LIMIT 1
    )
"""


class Stalling(Watcher):
    """Reads nothing after its first event until told to."""

    def __init__(self, addresses: Sequence[str], **more: Any) -> None:
        super().__init__(addresses, options=FRUGAL, **more)
        self.going_on = asyncio.Event()
        self.error: grpc.aio.AioRpcError | None = None

    async def taken(self) -> bool:
        await self.going_on.wait()
        return True

    def refused(self, error: grpc.aio.AioRpcError) -> None:
        self.error = self.error or error
        if error.code() is grpc.StatusCode.OUT_OF_RANGE:
            self.token = base64.b64decode(info_of(error).metadata["oldest_resume_token"])
        else:
            super().refused(error)


async def happen(client: SessionClient, events: int) -> None:
    """Let so much happen, to many sessions at once."""

    async def save_all(name: str) -> None:
        for _ in range(events // 50):
            await client.save(AGENT, name, conversation())

    await asyncio.gather(*(save_all(f"s{n}") for n in range(50)))


async def test_a_crowd_that_pauses_delays_nobody_takes_little_and_is_given_the_rest_from_the_log(
    server: ServerFactory, database_url: str, tell: Tell
) -> None:
    process = await asyncio.to_thread(server, "--watch-send-timeout=3600", database_url=database_url)
    memory = psutil.Process(process.pid).memory_info
    async with SessionClient(process.address) as client, AsyncExitStack() as stack:
        await happen(client, EVENTS)  # what a server needs anyway is there
        before = memory().rss
        good = await stack.enter_async_context(Watcher([process.address]))
        crowd = [await stack.enter_async_context(Stalling([process.address])) for _ in range(CROWD)]
        await happen(client, EVENTS)
        await good.until_received(EVENTS)
        grown = memory().rss - before
        assert await asyncio.to_thread(value_of, process, SLOW_REPLAYS) < CROWD, "the crowd does not pause"
        for watcher in crowd:
            watcher.going_on.set()
        for watcher in crowd:
            await watcher.until_received(EVENTS)
        await client.save(AGENT, "s0", conversation())
        everybody: Sequence[Watcher] = (good, *crowd)
        for one in everybody:
            await one.until_received(EVENTS + 1)
            assert one.received == good.received
            assert one.streams == 1
        assert await asyncio.to_thread(value_of, process, SLOW_REPLAYS) >= CROWD
    tell(f"{CROWD} watchers that read nothing, {EVENTS} events: the server grew by {grown / 2**20:.1f} MiB")
    assert grown < MOST_MEMORY


async def test_one_who_reads_nothing_for_long_is_ended_and_goes_on(server: ServerFactory, database_url: str) -> None:
    process = await asyncio.to_thread(server, "--watch-send-timeout=0.5", database_url=database_url)
    async with (
        SessionClient(process.address) as client,
        Watcher([process.address]) as good,
        Stalling([process.address]) as stalled,
    ):
        await happen(client, EVENTS)
        await until_counted(process, SLOW_DROPS, 1)
        stalled.going_on.set()
        await good.until_received(EVENTS)
        await stalled.until_received(EVENTS)
        assert stalled.ends == {"RESOURCE_EXHAUSTED SLOW_WATCHER": 1}
        assert [one.event_id for one in stalled.received] == [one.event_id for one in good.received]
        assert good.streams == 1


async def test_one_whom_the_trimming_overtakes_is_told_where_the_log_begins(
    server: ServerFactory, database_url: str
) -> None:
    process = await asyncio.to_thread(server, database_url=database_url)
    async with SessionClient(process.address) as client, Stalling([process.address]) as slow:
        async with Watcher([process.address]) as good:
            await happen(client, EVENTS)
            await good.until_received(EVENTS)
        await query(database_url, TRIM)
        slow.going_on.set()
        await slow.until(lambda: slow.streams == 2)
        assert slow.error is not None
        assert (slow.error.code(), info_of(slow.error).reason) == (grpc.StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
        got = len(slow.received)
        assert 0 < got < EVENTS
        await client.restore(AGENT, "s0")
        await slow.until_received(got + 1)
        assert slow.received[-1].session_name == "s0"


async def test_a_drain_does_not_wait_for_one_who_reads_nothing(server: ServerFactory, database_url: str) -> None:
    flags = (f"--drain-timeout={DRAIN_TIMEOUT}", "--watch-send-timeout=3600")
    process = await asyncio.to_thread(server, *flags, database_url=database_url)
    async with Stalling([process.address]):
        async with SessionClient(process.address) as client, Watcher([process.address]) as good:
            await happen(client, EVENTS)
            await good.until_received(EVENTS)
            began = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(process.stop))
            await good.until(lambda: good.ends["UNAVAILABLE SHUTTING_DOWN"])
            told = time.monotonic() - began
        assert await stopping == 0
        assert told < DRAIN_TIMEOUT / 2
        assert time.monotonic() - began < DRAIN_TIMEOUT + 5


async def test_a_restart_of_postgresql_is_noticed_by_nobody(server: ServerFactory, data_dir: Path) -> None:
    cluster = Cluster(data_dir)
    try:
        await cluster.create()
        process = await asyncio.to_thread(server, "--watch-bookmark-interval=0.1", database_url=cluster.url)
        async with SessionClient(process.address) as client, Watcher([process.address]) as watcher:
            for number in range(1, 4):
                await client.save(AGENT, "s", conversation())
                await watcher.until_received(2 * number - 1)
                await cluster.restart()
                await client.restore(AGENT, "s")
                await watcher.until_received(2 * number)
            await watcher.until_silent()
        assert watcher.revisions == [1, 1, 2, 2, 3, 3]
        assert (watcher.streams, watcher.ends) == (1, {})
    finally:
        await cluster.remove()
