"""Packing as an operator sees it: `serve` does it by itself, `session-service pack` does it now."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import asyncpg
from agent_sessions import SessionClient, State

from tests.faults.database import connected, query, until
from tests.faults.metrics import value_of
from tests.fixtures.coverage import python_arguments
from tests.fixtures.figures import Tell
from tests.fixtures.servers import ServerFactory, ServerProcess, clean_environment

MESSAGES = 40
AT_ONCE = ("--pack-after=0", "--housekeeping-budget=60")
SEGMENTS = "SELECT count(*) FROM transcript_segments"


async def fill(client: SessionClient, agent_id: str, name: str) -> list[list[str]]:
    """Save after every message, and a branch now and then; returns what each revision holds."""
    session, revisions, texts = client.session(agent_id, name), [], list[str]()
    for number in range(MESSAGES):
        text = f"message {number} of {name}, " + "as long as usual " * (number % 30)
        texts = [*(texts[:-3] if number % 13 == 12 else texts), text]
        await session.save(State(messages=texts))
        revisions.append(texts)
    return revisions


async def assert_kept(client: SessionClient, agent_id: str, saved: Mapping[str, list[list[str]]]) -> None:
    for name, revisions in saved.items():
        for number, texts in enumerate(revisions, 1):
            found = await client.get_revision(agent_id, name, revision=number)
            assert found.decode().messages == texts, (name, number)
        restored = await client.restore(agent_id, name, message_limit=5)
        assert restored.decode().messages == revisions[-1][-5:]


async def packed(process: ServerProcess) -> float:
    return await value_of(process, "session_service_packed_messages_total")


async def test_serve_packs_by_itself(server: ServerFactory, database_url: str, agent_id: str, tell: Tell) -> None:
    process = await asyncio.to_thread(server, *AT_ONCE, database_url=database_url)
    async with SessionClient(process.address) as client:
        names = [f"s{number}" for number in range(4)]
        revisions = await asyncio.gather(*(fill(client, agent_id, name) for name in names))
        saved = dict(zip(names, revisions, strict=True))
        written = await value_of(process, "session_service_saved_messages_total")

        await until(lambda: _reached(process, written / 2))

        await assert_kept(client, agent_id, saved)
        # Of each: the end that may still grow, and what the head has left.
        assert (await query(database_url, SEGMENTS))[0][0] < written / 2
        # Sessions go on after they were packed.
        for name in names:
            saved[name].append([*saved[name][-1], "and on"])
            await client.session(agent_id, name).save(State(messages=saved[name][-1]))
        await assert_kept(client, agent_id, saved)
    before = await value_of(process, "session_service_packing_before_bytes_total")
    after = await value_of(process, "session_service_packing_after_bytes_total")
    assert 0 < after < before
    assert await value_of(process, "session_service_packing_damaged_total") == 0
    tell(f"packing by itself: {before:.0f} stored bytes became {after:.0f}")


async def _reached(process: ServerProcess, messages: float) -> bool:
    return await packed(process) >= messages


async def test_nothing_is_packed_without_a_budget_or_before_it_rests(
    server: ServerFactory, database_url: str, agent_id: str
) -> None:
    idle = await asyncio.to_thread(server, "--pack-after=0", "--housekeeping-budget=0", database_url=database_url)
    async with SessionClient(idle.address) as client:
        await fill(client, agent_id, "s")
    rested = await asyncio.to_thread(server, "--housekeeping-budget=60", database_url=database_url)
    walked = "SELECT count(*) FROM packing_state WHERE round_ended > '-infinity'"
    await until(lambda: _found(database_url, walked))
    assert await packed(idle) == await packed(rested) == 0
    assert (await query(database_url, SEGMENTS))[0][0] == MESSAGES


async def _found(database_url: str, statement: str) -> bool:
    return bool((await query(database_url, statement))[0][0])


def run_pack(database_url: str, *flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *python_arguments("session_service"), "pack", "--log-format=json", *flags],
        env=clean_environment() | {"SESSION_SERVICE_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])
    return found


async def test_the_command_packs_until_nothing_is_left(server: ServerFactory, database_url: str, agent_id: str) -> None:
    process = await asyncio.to_thread(server, database_url=database_url)
    async with SessionClient(process.address) as client:
        saved = {name: await fill(client, agent_id, name) for name in ("a", "b")}
        rows = (await query(database_url, SEGMENTS))[0][0]

        waiting = told(await asyncio.to_thread(run_pack, database_url))
        assert (waiting["event"], waiting["messages"]) == ("packed", 0)  # nothing has rested for five minutes
        done = told(await asyncio.to_thread(run_pack, database_url, "--now"))
        again = told(await asyncio.to_thread(run_pack, database_url, "--now"))

        assert (done["segments"], done["sessions_left"], done["damaged"]) == (rows, 0, 0)
        assert done["bytes_after"] < done["bytes_before"]
        assert (await query(database_url, SEGMENTS))[0][0] == done["became"]
        assert again["messages"] == 0
        await assert_kept(client, agent_id, saved)


async def test_the_command_needs_a_database_and_its_schema(empty_database_url: str) -> None:
    missing = await asyncio.to_thread(run_pack, "")
    assert missing.returncode == 2
    assert "--database-url: pack needs it" in missing.stderr
    older = await asyncio.to_thread(run_pack, empty_database_url)
    assert older.returncode == 1
    assert "session-service migrate" in older.stderr


async def test_a_killed_packer_loses_nothing(
    unmeasured_server: ServerFactory, database_url: str, agent_id: str
) -> None:
    """SIGKILL in the middle of its transaction, which PostgreSQL then ends by itself; and its backend terminated."""
    process = await asyncio.to_thread(unmeasured_server, "--housekeeping-budget=0", database_url=database_url)
    async with SessionClient(process.address) as client:
        saved = {}
        for number in range(4):
            saved[f"s{number}"] = await fill(client, agent_id, f"s{number}")
            await _kill_in_transaction(database_url, backend=bool(number % 2))
            await assert_kept(client, agent_id, saved)
        done = told(await asyncio.to_thread(run_pack, database_url, "--now"))
        assert done["sessions_left"] == 0
        await assert_kept(client, agent_id, saved)


async def _kill_in_transaction(database_url: str, *, backend: bool) -> None:
    async with connected(database_url) as holder, connected(database_url) as observer:
        await holder.execute("BEGIN; LOCK TABLE transcript_segments IN EXCLUSIVE MODE")  # reads go on
        packing = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "session_service", "pack", "--now", f"--database-url={database_url}"),
            env=clean_environment(),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until(lambda: _stuck(observer))
        if backend:
            assert await observer.fetchval(f"SELECT pg_terminate_backend(pid, 10000) FROM ({STUCK}) AS stuck")  # noqa: S608
            # It begins anew over another connection.
            await until(lambda: _stuck(observer))
        packing.kill()
        await packing.wait()
        await holder.execute("ROLLBACK")
    await until(lambda: _ended(database_url))


STUCK = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%pack_segments_v1%'
"""


async def _stuck(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    return bool(await connection.fetch(STUCK))


async def _ended(database_url: str) -> bool:
    """Whether what the killed one had begun is over, one way or the other."""
    running = "pid <> pg_backend_pid() AND query LIKE '%pack_segments_v1%' AND state = 'active'"
    statement = f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {running}"  # noqa: S608
    return not (await query(database_url, statement))[0][0]
