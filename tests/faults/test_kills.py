"""Processes killed in the middle of saves: what was acknowledged is there, once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from agent_sessions import SessionClient
from session_service.postgres.embedded import running_postmaster

from tests.faults.conversations import AGENT, texts_of
from tests.faults.database import SAVING, query, revisions_locked, until, until_a_save_is_stuck
from tests.faults.workload import Workload
from tests.fixtures.servers import ServerFactory, ServerProcess

SESSIONS = 4
PER_ROUND = 12
"""Answers before each kill and after it."""

BY_REQUEST = """
    SELECT request_id, array_agg(revision) AS revisions, min(s.session_name) AS session_name
    FROM revisions JOIN sessions AS s USING (bucket, session_id) GROUP BY request_id
"""
EVENTS = """
    SELECT session_name, array_agg(revision ORDER BY xid, seq) AS revisions
    FROM session_events WHERE type = 1 GROUP BY session_name
"""


class Scene:
    """One data directory, the server that uses it now, and the writers that use the server."""

    def __init__(self, start: ServerFactory, data_dir: Path) -> None:
        self._start = start
        self._data_dir = data_dir
        # Its socket keeps its name when the server is started again.
        self._listen = f"--listen=unix:{data_dir.parent / 'rpc'}"
        self.server: ServerProcess

    @property
    def database_url(self) -> str:
        return str(self.server.wait_for_event("PostgreSQL is embedded")["url"])

    @property
    def postmaster(self) -> psutil.Process:
        found = running_postmaster(self._data_dir / "pgdata")
        assert found is not None
        return found

    async def start(self) -> None:
        self.server = await asyncio.to_thread(self._start, self._listen, data_dir=self._data_dir)


async def kill_server(scene: Scene, workload: Workload) -> None:
    """SIGKILL while saves are in flight; the next server replaces the PostgreSQL that was left behind."""
    await workload.until_in_flight(SESSIONS)
    scene.server.kill()
    await scene.start()


async def kill_server_before_its_answer(scene: Scene, workload: Workload) -> None:
    """SIGKILL while PostgreSQL carries out a save, which it then commits with nobody to tell."""
    async with revisions_locked(scene.database_url):
        await until_a_save_is_stuck(scene.database_url)
        assert workload.in_flight
        scene.server.kill()
    await until(lambda: _is_idle(scene.database_url))
    replays = workload.replays
    await scene.start()
    # The retry finds what was stored.
    await until(lambda: workload.replays > replays)


async def kill_server_within_a_transaction(scene: Scene, workload: Workload) -> None:
    """SIGKILL while PostgreSQL carries out a save, which ends with the PostgreSQL that is replaced."""
    async with revisions_locked(scene.database_url):
        await until_a_save_is_stuck(scene.database_url)
        assert workload.in_flight
        scene.server.kill()
        await scene.start()


async def kill_postmaster(scene: Scene, workload: Workload) -> None:
    """SIGKILL to the postmaster; the server starts another."""
    victim = scene.postmaster
    await workload.until_in_flight(SESSIONS)
    victim.kill()


async def kill_postmaster_within_a_transaction(scene: Scene, workload: Workload) -> None:
    victim = scene.postmaster
    async with revisions_locked(scene.database_url):
        await until_a_save_is_stuck(scene.database_url)
        assert workload.in_flight
        victim.kill()


async def kill_backend(scene: Scene, workload: Workload) -> None:
    """SIGKILL to the backend that carries out a save; PostgreSQL ends all others and recovers."""
    async with _stuck_backend(scene, workload) as pid:
        os.kill(pid, signal.SIGKILL)


async def terminate_backend(scene: Scene, workload: Workload) -> None:
    async with _stuck_backend(scene, workload) as pid:
        assert await query(scene.database_url, "SELECT pg_terminate_backend($1, 10000)", pid)


async def cancel_backend(scene: Scene, workload: Workload) -> None:
    """End the statement, not the connection."""
    async with _stuck_backend(scene, workload) as pid:
        assert await query(scene.database_url, "SELECT pg_cancel_backend($1)", pid)
        await until(lambda: _is_not_saving(scene.database_url, pid))


Kill = Callable[[Scene, Workload], Coroutine[Any, Any, None]]
ROUNDS: dict[str, tuple[Kill, ...]] = {
    "server": (*[kill_server] * 3, *[kill_server_before_its_answer] * 2, *[kill_server_within_a_transaction] * 2),
    "postmaster": (*[kill_postmaster] * 3, *[kill_postmaster_within_a_transaction] * 3),
    "backend": (*[kill_backend] * 3, *[terminate_backend] * 3, cancel_backend),
}


def test_there_are_twenty_rounds() -> None:
    assert sum(map(len, ROUNDS.values())) == 20


@pytest.mark.parametrize("victim", ROUNDS)
async def test_what_was_acknowledged_is_there_once(data_dir: Path, server: ServerFactory, victim: str) -> None:
    scene = Scene(server, data_dir)
    await scene.start()
    workload = Workload(scene.server.address, SESSIONS)
    interrupted = 0
    for kill in ROUNDS[victim]:
        await workload.until_promised(PER_ROUND)
        failed = len(workload.retries.failed)
        await kill(scene, workload)
        await workload.until_promised(PER_ROUND)
        interrupted += len(workload.retries.failed) > failed
    # The server itself repeats over a new connection what a backend took along, and on a busy
    # machine a new postmaster may be there before a save misses the old one.
    assert victim == "backend" or interrupted > len(ROUNDS[victim]) / 2, "hardly a save was interrupted"
    await workload.stop()
    await asyncio.to_thread(scene.server.wait_until_serving)
    await assert_kept(scene, workload)


async def assert_kept(scene: Scene, workload: Workload) -> None:
    """Everything promised restores; nothing is there twice; the numbers have no gap, in the log neither."""
    promised = workload.by_session()
    rows = await query(scene.database_url, BY_REQUEST)
    stored = {row["request_id"]: (row["session_name"], list(row["revisions"])) for row in rows}
    assert {p.request_id: (p.session_name, [p.revision]) for p in workload.promises} == stored
    async with SessionClient(scene.server.address) as client:
        for name, promises in promised.items():
            numbers = [r.revision async for r in client.list_revisions(AGENT, name, order_by="revision")]
            assert numbers == list(range(1, len(promises) + 1))
            for revision, promise in promises.items():
                found = await client.get_revision(AGENT, name, revision=revision)
                assert texts_of(found) == promise.texts
            head = await client.restore(AGENT, name)
            assert texts_of(head) == promises[len(promises)].texts
    for row in await query(scene.database_url, EVENTS):
        assert list(row["revisions"]) == list(range(1, len(promised[row["session_name"]]) + 1))


@asynccontextmanager
async def _stuck_backend(scene: Scene, workload: Workload) -> AsyncIterator[int]:
    """Give the process id of a backend that is in the middle of a save."""
    url = scene.database_url
    async with revisions_locked(url):
        await until_a_save_is_stuck(url)
        assert workload.in_flight
        yield (await query(url, SAVING))[0]["pid"]


async def _is_idle(database_url: str) -> bool:
    return not await query(database_url, SAVING)


async def _is_not_saving(database_url: str, pid: int) -> bool:
    return pid not in [row["pid"] for row in await query(database_url, SAVING)]
