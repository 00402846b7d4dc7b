"""`verify` finds every damage and nothing else, beside whatever else happens."""

import asyncio
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import pytest
from agent_sessions import NO_RETRY, SessionClient
from session_service.postgres.verification import verifier
from session_service.postgres.verification.damage import Damage
from session_service.postgres.verification.verifier import Verifier
from session_service.sessions.model import Change, Save, SessionKey

from tests.faults.database import connected
from tests.faults.test_corruption import DAMAGE, DELETE, KEYS, Model, Name, Row, damage, fill, flip
from tests.fixtures.coverage import python_arguments
from tests.fixtures.servers import ServerFactory, clean_environment
from tests.model.stores import content, delta, postgres_store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
PLANTED = 200
PAYLOADS = {
    "transcript_segments": ("payload", "digest"),
    "revisions": ("state", "digest", "state_digest", "value_digests"),
    "state_values": ("payload", "digest"),
    "transcripts": ("parent_digest",),
    "sessions": ("head_digest",),
}
NUMBERS = [
    ("transcripts", "parent_message_count = parent_message_count + 1"),
    ("transcripts", "parent_transcript_id = coalesce(parent_transcript_id, 0) + 1000"),
    ("transcripts", "parent_bytes = parent_bytes + 1"),
    ("transcripts", "depth = depth + 1"),
    ("transcripts", "parent_transcript_id = transcript_id"),
    ("revisions", "message_bytes = message_bytes + 1"),
    ("revisions", "transcript_id = transcript_id + 1000"),
    ("revisions", "parent_revision = revision"),
    ("revisions", DELETE),
    ("sessions", "head_revision = head_revision + 1"),
    ("sessions", "head_transcript_id = head_transcript_id + 1000"),
    ("sessions", "head_transcript_length = head_transcript_length + 1"),
    ("sessions", "message_count = message_count + 1"),
    ("sessions", "message_bytes = message_bytes + 1"),
    ("sessions", "size_bytes = size_bytes + 1"),
    ("sessions", DELETE),
    ("transcript_segments", "end_bytes = end_bytes + 1"),
]
"""Beside what test_corruption does: columns that no reader checks."""

Place = tuple[str, str]
"""A table, and a condition that finds the row."""


async def verified(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Damage]:
    verifying = Verifier(connection.fetch, lambda bucket, checked: None)
    return [found async for found in verifying.damages()]


def place_of(found: Damage) -> Place:
    parts = zip(KEYS[found.table], found.key[-len(KEYS[found.table]) :], strict=True)
    return found.table, " AND ".join(
        f"{column} = " + (f"'\\x{value.hex()}'" if isinstance(value, bytes) else str(value)) for column, value in parts
    )


def needed_by(found: Damage) -> set[Name]:
    return {(owner.session_name, number) for owner, numbers in found.needed_by.items() for number in numbers}


@pytest.fixture
async def database(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    async with connected(database_url) as connection:
        await connection.execute("SET synchronous_commit = off; SET enable_seqscan = off")
        yield connection


@pytest.mark.timeout(300)
async def test_each_damage_is_found_with_who_needs_the_row(
    server: ServerFactory, database_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with SessionClient(server(database_url=database_url).address, retry=NO_RETRY) as client:
        await fill(client)
    assert await verified(database) == []
    model = await Model.read(database)
    for table in KEYS:
        await database.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")
    changes = [(table, change) for table, change, _ in DAMAGE if change != flip("fingerprint")]
    done = Counter[str]()
    for table, change in [*changes, *NUMBERS]:
        for row in model.rows(table):
            await damage(database, row, change)
            if not await database.fetch(f"TABLE kept_{table} EXCEPT TABLE {table}"):
                continue  # the column was empty
            await assert_found(database, row, change)
            await database.execute(f"DELETE FROM {table}; INSERT INTO {table} TABLE kept_{table}")  # noqa: S608 - constants
            done[table] += 1
    assert done.keys() == KEYS.keys()
    assert done.total() > 300
    assert await verified(database) == []


async def assert_found(database: "asyncpg.Connection[asyncpg.Record]", row: Row, change: str) -> None:
    """The row is found, and no other one but what it seems to name by now."""
    found = await verified(database)
    told = [str(one) for one in found]
    if "+ 1000" in change or change == "head_revision = head_revision + 1":
        assert len(found) == 1, (row, change, told)  # the row that it names is missing, or it is wrong itself
        return
    if row.table == "transcripts" and change == DELETE and found[0].table == "revisions":
        # Nothing else knows of it: no segment, no other revision.
        assert [needed_by(one) for one in found] == [row.needed_by], (change, told)
        return
    assert [place_of(one) for one in found] in expected(row, found), (row, change, told)
    if row.table == "sessions" and change == DELETE:
        return
    (one,) = [one for one in found if one.table == row.table]
    if row.table in ("transcript_segments", "state_values", "revisions"):
        assert needed_by(one) == row.needed_by, (row, change, told)
    else:
        assert needed_by(one) >= row.needed_by, (row, change, told)


def expected(row: Row, found: Iterable[Damage]) -> list[list[Place]]:
    """The row; where its key is damaged, under the key that it has now."""
    if row.table == "state_values" and all(one.table == "state_values" for one in found):
        return [[place_of(one)] for one in found]
    return [[(row.table, row.key)]]


async def many(database_url: str) -> None:
    """Sessions of several agents, with branches, edits and values of their own and shared."""
    async with postgres_store(database_url) as (store, tenant):

        async def live(number: int) -> None:
            agent, name = f"agent {number % 7}", f"s{number}"
            save = Save(tenant, agent, name, content([]), "test")
            values = {"own": f"{number}" * 1500, "shared": f"{number % 7} {number % 5}" * 700}
            texts = [f"{number} {n} " + "x" * 200 for n in range(6)]
            for what in (
                content(texts[:3], values),
                delta(1, texts[3:]),
                content([*texts[:4], "an edit", "and more"], values),
                delta(3, ["further"]),
                content(texts[:2]),
            ):
                await store.save(save._replace(content=what, request_id=uuid4()), NOW)

        await asyncio.gather(*map(live, range(90)))


async def test_two_hundred_damages_at_once_are_found_and_nothing_else(
    database_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    await many(database_url)
    assert await verified(database) == []
    model = await Model.read(database)
    chance = random.Random(20260102)  # noqa: S311 - no secret
    rows = [row for table in ("transcript_segments", "revisions", "state_values") for row in model.rows(table)]
    planted: dict[Place, str] = {}
    for row in chance.sample(rows, len(rows)):
        column = chance.choice(PAYLOADS[row.table])
        await plant(database, row, column, chance.randrange(1000), planted, PLANTED - 20)
    # Of rows without a checksum, where others tell of them.
    hurt = {(one.table, one.key[0]) for one in await verified(database)}
    # A branch without messages of its own is known by its revision alone, which may be damaged, too.
    bearing = {row.key.split(" AND ")[0] for row in model.rows("transcript_segments")}
    for table in ("transcripts", "sessions"):
        for row in chance.sample(model.rows(table), 60):
            own = int(row.key.rpartition(" ")[2])
            sound = not any((other, own) in hurt for other in ("transcript_segments", "transcripts", "revisions"))
            if sound and (table == "sessions" or row.key in bearing):
                limit = PLANTED - 10 if table == "transcripts" else PLANTED
                await plant(database, row, PAYLOADS[table][0], chance.randrange(1000), planted, limit)
    assert len(planted) == PLANTED
    found = await verified(database)
    moved = {key for (table, key), column in planted.items() if (table, column) == ("state_values", "digest")}
    places = Counter(place_of(one) for one in found)
    # A value whose digest is damaged has another key by now.
    assert {place for place in planted if place[1] not in moved} == {place for place in places if place in planted}
    assert places.total() == PLANTED, [str(one) for one in found if place_of(one) not in planted]


async def plant(
    database: "asyncpg.Connection[asyncpg.Record]",
    row: Row,
    column: str,
    at: int,
    planted: dict[Place, str],
    limit: int,
) -> None:
    if len(planted) >= limit or (row.table, row.key) in planted:
        return
    filled = f"SELECT 1 FROM {row.table} WHERE length({column}) > 0 AND {row.key}"  # noqa: S608 - constants
    if await database.fetch(filled):
        await damage(database, row, flip(column, at))
        planted[row.table, row.key] = column


async def test_nothing_is_found_beside_saves_and_purges(
    database_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    done = asyncio.Event()
    async with postgres_store(database_url) as (store, tenant):

        async def live(number: int) -> None:
            name = f"s{number}"
            for turn in range(40):
                texts = [f"{turn // 5} {n}" for n in range(turn % 5 + 1)]
                values = {"big": f"{turn}" * 1500}
                save = Save(tenant, "ada", name, content(texts, values), "test", request_id=uuid4())
                await store.save(save, NOW)
                if turn % 10 == 9:
                    change = Change(SessionKey(tenant, "ada", name), "test", uuid4())
                    await store.delete(change, purge=True, now=NOW)

        async def verify() -> int:
            rounds = 0
            while not done.is_set():
                assert await verified(database) == []
                rounds += 1
            return rounds

        verifying = asyncio.create_task(verify())
        await asyncio.gather(*map(live, range(6)))
        done.set()
        assert await verifying > 1


def run(database_url: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *python_arguments("session_service"), "verify", f"--database-url={database_url}"]
    return subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60, check=False)


async def test_the_command_tells_each_damage_in_a_line_and_exits_with_it(
    database_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    empty = await asyncio.to_thread(run, database_url)
    assert (empty.returncode, empty.stdout) == (0, "whole: nothing stored\n")
    await many(database_url)
    whole = await asyncio.to_thread(run, database_url)
    assert whole.returncode == 0
    assert whole.stdout.startswith("whole: 450 revisions, 90 sessions, ")
    await database.execute(f"UPDATE revisions SET {flip('state')} WHERE session_id = 1 AND revision IN (2, 4)")  # noqa: S608 - constants
    await database.execute("DELETE FROM transcript_segments WHERE transcript_id = 2 AND first_message = 0")
    damaged = await asyncio.to_thread(run, database_url)
    assert damaged.returncode == 1
    *lines, summary = damaged.stdout.splitlines()
    assert summary.startswith("3 damaged of 450 revisions, 90 sessions, ")
    assert sorted(lines) == sorted(await expected_lines(database))
    assert all(line.startswith("{") for line in damaged.stderr.splitlines())


async def expected_lines(database: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    owners: Mapping[int, str] = {}
    rows = await database.fetch("""
        SELECT s.session_id, s.bucket, s.head_transcript_id, t.name, s.agent_id, s.session_name
        FROM sessions AS s JOIN tenants AS t USING (tenant_id)
    """)
    owners = {
        row["session_id"]: f'tenant "{row["name"]}" agent "{row["agent_id"]}" session "{row["session_name"]}"'
        for row in rows
    }
    buckets = {row["session_id"]: row["bucket"] for row in rows}
    (second,) = await database.fetch("SELECT DISTINCT session_id, bucket FROM revisions WHERE transcript_id = 2")
    return [
        *(
            f"revisions bucket={buckets[1]} session_id=1 revision={n}: checksum; needed by {owners[1]} revisions {n}"
            for n in (2, 4)
        ),
        f"transcript_segments bucket={second['bucket']} transcript_id=2 first_message=0: messages from 0 to 2 are"
        f" missing; needed by {owners[second['session_id']]} revisions 1-5",
    ]


def test_the_command_needs_a_database() -> None:
    command = [sys.executable, *python_arguments("session_service"), "verify"]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=60, check=False)
    assert done.returncode == 2
    assert "--database-url" in done.stderr


async def test_a_tenant_that_comes_meanwhile_is_no_damage(
    database_url: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    came = False

    async def fetch(query: str, *arguments: object) -> Sequence[asyncpg.Record]:
        nonlocal came
        rows = await database.fetch(query, *arguments)
        if query == verifier.TENANTS and not came:
            came = True
            await many(database_url)
        return rows

    async with postgres_store(database_url) as (store, tenant):
        save = Save(tenant, "ada", "s", content(["a"]), "test", request_id=uuid4())
        await store.save(save, NOW)
    found = [damage async for damage in Verifier(fetch, lambda bucket, checked: None).damages()]
    assert came
    assert found == []
