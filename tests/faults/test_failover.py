"""The primary dies and its asynchronous replica goes on, without what it had not got yet; and other changes of the log.

What did not survive was delivered all the same, and its transaction ids and event numbers are given out again.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
from agent_sessions import SessionClient
from session_service.sessions.events import Position

from tests.faults.clusters import Cluster, open_to_all, url_of_both
from tests.faults.conversations import AGENT
from tests.faults.database import query, until
from tests.faults.proxy import Proxy
from tests.faults.watcher import ALL_TYPES, Watcher, info_of
from tests.faults.workload import Workload
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory
from tests.soak.database import SoakDatabase
from tests.soak.oracle import judge

FLAGS = ("--watch-bookmark-interval=0.1", "--event-poll-interval=0.1")
SERVERS = 2
SESSIONS = 4
SAVES = 60
"""Answered in each phase, at least."""

PROMOTED = 2
"""The replica's timeline after its promotion."""

KEPT = "SELECT FROM log_state WHERE (watermark_xid::text::bigint, watermark_seq) >= ($1, $2)"
STARTS = "SELECT timeline, start_xid::text::bigint AS xid, start_seq AS seq FROM log_timelines"
OF_LOG = "SELECT horizon_xid::text::bigint AS xid, horizon_seq AS seq FROM log_state"


@pytest.fixture
async def clusters(data_dir: Path) -> AsyncIterator[list[Cluster]]:
    """Return two clusters that are neither made nor started."""
    both = [Cluster(data_dir.parent / name) for name in ("first", "second")]
    yield both
    for one in both:
        await one.remove()


async def test_watchers_lose_nothing_that_survives_a_failover(
    server: ServerFactory, clusters: list[Cluster], data_dir: Path
) -> None:
    primary, replica = clusters
    await primary.create()
    proxy_directory = data_dir.parent / "proxy"
    proxy_directory.mkdir()
    proxy = Proxy(primary.url, proxy_directory)
    await open_to_all(proxy)
    await replica.copy(proxy)
    url = url_of_both(primary, replica)
    processes = await asyncio.gather(*(asyncio.to_thread(server, *FLAGS, database_url=url) for _ in range(SERVERS)))
    addresses = [process.address for process in processes]
    async with AsyncExitStack() as stack:
        turned = [*addresses[1:], *addresses[:1]]
        watchers = [await stack.enter_async_context(Watcher(order)) for order in (addresses, turned)]
        workload = Workload(addresses[0], SESSIONS)

        # A place that will be good, and one that will not.
        await workload.until_promised(SAVES)
        await watchers[0].until_received(1)
        early = watchers[0].token
        database = SoakDatabase(primary.url)
        await database.connect()
        noted = database.place(early).position
        # How far the log was read is noted every few seconds: by now it may have been, but not as far as that.
        await until(lambda: query(primary.url, KEPT, *noted))
        await replica.has_replayed(primary)
        await proxy.close()
        await workload.until_promised(SAVES)
        cut = len(await query(replica.url, "SELECT FROM session_events"))
        for watcher in watchers:
            await watcher.until_received(cut + SAVES)
        lost_token = watchers[1].token
        await primary.kill()
        await replica.promote()

        await workload.until_promised(SAVES)
        await workload.stop()
        database = SoakDatabase(replica.url)
        await database.connect()
        log = await database.log()
        end = Position(*log[-1][:2])
        for watcher in watchers:
            await watcher.until(partial(_has_come_to, database, watcher, end))

    survived = {one.event_id for one in log}
    for watcher in watchers:
        gone = [one for one in watcher.received if one.event_id not in survived]
        assert {one.stream for one in gone} == {1}, "of what went with the primary some came before, and none after"
        kept = [one for one in watcher.received if one.event_id in survived]
        verdict = judge(log, ALL_TYPES, "", kept)
        assert verdict.is_good, verdict
        assert verdict.repeats, "the token was not set back"

    # Ids that a watcher had seen already were given out again.
    seen = database.place(lost_token).position
    (start,) = await query(replica.url, STARTS)
    assert start["timeline"] == PROMOTED
    began = Position(start["xid"], start["seq"])
    assert [one for one in log[cut:] if Position(one.xid, one.seq) <= seen], "no id was used again"
    assert database.place(early).position <= began < seen
    for token, first in ((lost_token, began), (early, database.place(early).position)):
        async with Watcher(addresses, token=token) as resumed:
            expected = [one.event_id for one in log if (one.xid, one.seq) > first]
            await resumed.until_received(len(expected))
            assert [one.event_id for one in resumed.received] == expected
    assert {end for watcher in watchers for end in watcher.ends} <= {"UNAVAILABLE DATABASE_UNAVAILABLE"}


def _has_come_to(database: SoakDatabase, watcher: Watcher, end: Position) -> bool:
    place = database.place(watcher.token)
    return place.timeline == PROMOTED and place.position >= end


async def test_a_dumped_and_restored_log_is_another_one(server: ServerFactory, clusters: list[Cluster]) -> None:
    old, new = clusters
    await old.create()
    process = await asyncio.to_thread(server, *FLAGS, database_url=old.url)
    async with SessionClient(process.address) as client, Watcher([process.address]) as watcher:
        for revision in range(1, 11):
            if revision == 6:
                await old.use_up_ids(2000)
            await client.save(AGENT, "s", conversation(str(revision)))
        await watcher.until_received(10)
    await asyncio.to_thread(process.stop)
    await new.create()
    await new.restore_dump(old)
    between = await new.use_up_ids(500)
    xids = [one[0] for one in await query(new.url, "SELECT xid::text::bigint FROM session_events ORDER BY revision")]
    assert xids[4] < between < xids[5], "of the old events some have lower and some have higher ids than new ones will"

    process = await asyncio.to_thread(server, *FLAGS, database_url=new.url)
    address = [process.address]
    async with SessionClient(process.address) as client, Watcher(address) as from_now_on:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async with Watcher(address, token=watcher.token):
                pass
        assert refusal.value.code() == grpc.StatusCode.OUT_OF_RANGE
        assert info_of(refusal.value).reason == "CURSOR_EXPIRED"
        oldest = base64.b64decode(info_of(refusal.value).metadata["oldest_resume_token"])
        await client.save(AGENT, "s", conversation("in the new cluster"))
        await from_now_on.until_received(1)
        # Until new ones have higher ids than the old ones had.
        await new.use_up_ids(2500)
        await client.restore(AGENT, "s")
        await from_now_on.until_received(2)
        async with Watcher(address, token=oldest) as from_the_beginning:
            await from_the_beginning.until_received(12)
            await from_the_beginning.until_silent()
        await from_now_on.until_silent()
    assert from_now_on.revisions == [11, 11]
    assert from_the_beginning.revisions == [*range(1, 12), 11]
