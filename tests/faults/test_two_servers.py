"""Two servers on one database, many processes on both, the same sessions; and what a late lock would do."""

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import combinations
from typing import Any

from agent_sessions import SessionClient

from tests.faults.conversations import AGENT, texts_of
from tests.faults.database import connected, query
from tests.fixtures.servers import ServerFactory, clean_environment

SERVERS = 2
PROCESSES = 16
SAVES = 25
"""Of each process."""
SESSIONS = 3
OVERLAPS = 100
"""Pairs of saves of different processes, through different servers, at the same time, on the same session: at least."""

LOG = """
    SELECT session_name, array_agg(revision ORDER BY xid, seq) AS revisions
    FROM session_events WHERE type = 1 GROUP BY session_name
"""

# Functions that stand in the way of PostgreSQL's own, for every connection to this database made from now on.
SHADOW = """
    DO $do$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
    END $do$;
    CREATE FUNCTION public.pg_advisory_xact_lock(key bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        {lock}
    END $$;
    CREATE FUNCTION public.pg_try_advisory_xact_lock(key bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
        {try_lock}
    END $$;
"""
ROUNDS = 6
# What a row lock would be like: the transaction has its id before it waits.
LOCK_AFTER_ID = SHADOW.format(
    lock="""
        PERFORM pg_current_xact_id();
        PERFORM pg_sleep(random() * 0.04);
        PERFORM pg_catalog.pg_advisory_xact_lock(key);
    """,
    try_lock="RETURN pg_catalog.pg_try_advisory_xact_lock(key);",
)

Attempts = Sequence[dict[str, Any]]


async def test_revisions_are_whole_and_in_order(server: ServerFactory, database_url: str) -> None:
    attempts, problems = await contend(server, database_url)
    assert problems == []
    assert {"REVISION_MISMATCH"} == {attempt["error"] for attempt in attempts if attempt["error"]}
    assert {True, False} == {attempt["expected"] is None for attempt in attempts if attempt["revision"]}


async def test_with_the_lock_after_the_transaction_id_it_fails(server: ServerFactory, database_url: str) -> None:
    async with connected(database_url) as connection:
        await connection.execute(LOCK_AFTER_ID)
    _, problems = await contend(server, database_url)
    assert all("in the log" in problem for problem in problems), problems
    # A matter of chance in each round, so there may be more than one; the log keeps what happened.
    for _ in range(ROUNDS):
        if problems:
            break
        await _run([server(database_url=database_url).address])
        problems = await _out_of_order(database_url)
    assert problems


async def contend(server: ServerFactory, database_url: str) -> tuple[Attempts, list[str]]:
    """Let the processes save, and return what they did and what is wrong with the result."""
    start = [asyncio.to_thread(server, database_url=database_url) for _ in range(SERVERS)]
    servers = await asyncio.gather(*start)
    attempts = await _run([process.address for process in servers])
    assert len(attempts) == PROCESSES * SAVES
    assert_overlap(attempts)
    async with SessionClient(servers[0].address) as client:
        problems = [problem async for problem in _lost_or_twice(attempts, client)]
    return attempts, [*_errors(attempts), *problems, *await _out_of_order(database_url)]


def assert_overlap(attempts: Attempts) -> None:
    """Make sure that there was something to get wrong."""
    acknowledged = [attempt for attempt in attempts if attempt["revision"]]
    through = {(attempt["session_name"], attempt["address"]) for attempt in acknowledged}
    assert len(through) == SESSIONS * SERVERS, "both servers wrote to each session"
    assert len({attempt["process"] for attempt in acknowledged}) == PROCESSES
    assert sum(_at_the_same_time(one, other) for one, other in combinations(attempts, 2)) >= OVERLAPS


def _at_the_same_time(one: dict[str, Any], other: dict[str, Any]) -> bool:
    apart = one["process"] != other["process"] and one["address"] != other["address"]
    same = one["session_name"] == other["session_name"]
    return bool(apart and same and one["begin"] < other["end"] and other["begin"] < one["end"])


def _errors(attempts: Attempts) -> Iterator[str]:
    for attempt in attempts:
        conditional = attempt["expected"] is not None
        if attempt["error"] and not (conditional and attempt["error"] == "REVISION_MISMATCH"):
            yield f"a caller got {attempt['error']}"
        if conditional and attempt["revision"] not in (None, attempt["expected"] + 1):
            yield f"revision {attempt['revision']} where {attempt['expected']} was expected"


async def _lost_or_twice(attempts: Attempts, client: SessionClient) -> AsyncIterator[str]:
    by_session: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for attempt in attempts:
        if attempt["revision"]:
            by_session[attempt["session_name"]].append(attempt)
    for name, acknowledged in by_session.items():
        numbers = [r.revision async for r in client.list_revisions(AGENT, name, order_by="revision", page_size=1000)]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"{name}: gaps in {numbers}"
        if sorted(attempt["revision"] for attempt in acknowledged) != numbers:
            yield f"{name}: stored and acknowledged differ"
        for attempt in acknowledged:
            found = await client.get_revision(AGENT, name, revision=attempt["revision"])
            if texts_of(found) != ["hello", attempt["text"]]:
                yield f"{name}: revision {attempt['revision']} is another's"


async def _out_of_order(database_url: str) -> list[str]:
    logged = {row["session_name"]: list(row["revisions"]) for row in await query(database_url, LOG)}
    return [f"{name}: in the log as {seen}" for name, seen in logged.items() if seen != sorted(seen)]


async def _run(addresses: list[str]) -> Attempts:
    task = {"addresses": addresses, "processes": PROCESSES, "saves": SAVES, "sessions": SESSIONS}
    command = [sys.executable, "-m", "tests.faults.contenders", json.dumps(task)]
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=clean_environment())
    said, complaints = await program.communicate()
    assert program.returncode == 0, complaints.decode()
    attempts: Attempts = json.loads(said)
    return attempts
