"""Damage to stored rows: DATA_LOSS for the revisions that need the row, and for no other; self_contained heals."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass

import asyncpg
import pytest
from agent_sessions import NO_RETRY, AgentState, CorruptData, Message, Payload, SessionClient
from session_service.postgres.cold_sessions import Rests
from session_service.postgres.packer import Packer
from session_service.postgres.pool import Database

from tests.faults.conversations import AGENT
from tests.faults.database import connected
from tests.fixtures.packing import Heard
from tests.fixtures.postgres import ROLE
from tests.fixtures.servers import ServerFactory, ServerProcess

MARK = "SECRET-OF-A-CONVERSATION"
DIGEST_SIZE = 16
Name = tuple[str, int]
"""A session's name and a revision's number."""


def state(*texts: str, **values: bytes) -> AgentState:
    messages = [Message(message_id=text, text=f"{MARK} {text} {_noise(text, 300)}") for text in texts]
    return AgentState(
        message_history=messages, llm_provider=MARK, values={name: Payload(data=v) for name, v in values.items()}
    )


def _noise(seed: str, size: int) -> str:
    """Return text that compresses to about half, always the same for a seed."""
    return base64.b16encode(random.Random(seed).randbytes(size)).decode()  # noqa: S311 - no secret


BIG = _noise("big", 2000).encode()
OTHER = _noise("other", 2000).encode()


async def fill(client: SessionClient) -> dict[Name, AgentState]:
    """Save sessions that grow, shrink, part and share, with values of all sizes."""
    histories = {
        "grows": [
            state("a"),
            state("a", "b", "c", "d", "e"),
            state("a", "b", "c", "d", "e", "f", small=b"x"),
            state("a", "b", "c", "d", "e", "f", "g", big=BIG),
        ],
        "parts": [
            state("a", "b", "c", "d"),
            state("a", "b", "X", "Y", big=BIG, other=OTHER),
            state("a", "b", "X", "Z", "W", big=BIG),
            state("a", "b"),
            state("a", "b", "c", "V", other=OTHER),
        ],
        "alone": [state("a", "b", "c", "d"), state(), state(small=b"x")],
    }
    saved = {}
    for name, states in histories.items():
        for number, one in enumerate(states, 1):
            assert (await client.save(AGENT, name, one)).revision.revision == number
            saved[name, number] = AgentState(agent_id=AGENT, loop_state="LOOP_STATE_IDLE")
            saved[name, number].MergeFrom(one)
    return saved


@dataclass(frozen=True)
class Row:
    """A row that can be damaged, and the revisions that need it."""

    table: str
    key: str
    """A condition that finds it."""
    needed_by: frozenset[Name]


KEYS = {
    "sessions": ("session_id",),
    "transcripts": ("transcript_id",),
    "transcript_segments": ("transcript_id", "first_message"),
    "revisions": ("session_id", "revision"),
    "state_values": ("digest",),
}


class Model:
    """What is stored, read row by row: which revision needs which."""

    def __init__(self, rows: dict[str, list[asyncpg.Record]]) -> None:
        self._rows = rows
        self._names = {row["session_id"]: row["session_name"] for row in rows["sessions"]}
        self._transcripts = {row["transcript_id"]: row for row in rows["transcripts"]}

    @classmethod
    async def read(cls, connection: "asyncpg.Connection[asyncpg.Record]") -> "Model":
        return cls({table: await connection.fetch(f"TABLE {table}") for table in KEYS})

    def rows(self, table: str) -> list[Row]:
        """Return the rows of a table."""
        need: Callable[[asyncpg.Record, asyncpg.Record], bool] = {
            "sessions": lambda revision, row: False,
            "transcripts": self._needs_transcript,
            "transcript_segments": self._needs_segment,
            "revisions": lambda revision, row: revision is row,
            "state_values": _needs_value,
        }[table]
        return [
            Row(table, _key(table, row), frozenset(self._name(r) for r in self._rows["revisions"] if need(r, row)))
            for row in self._rows[table]
        ]

    def _name(self, revision: asyncpg.Record) -> Name:
        return self._names[revision["session_id"]], revision["revision"]

    def _reach(self, revision: asyncpg.Record) -> Iterator[tuple[int, int]]:
        """Yield every transcript that holds messages of a revision, and where they end in it."""
        transcript_id, end = revision["transcript_id"], revision["message_count"]
        while transcript_id is not None:
            transcript = self._transcripts[transcript_id]
            if end > (transcript["parent_message_count"] or 0):
                yield transcript_id, end
            end = min(end, transcript["parent_message_count"] or 0)
            transcript_id = transcript["parent_transcript_id"] if end else None

    def _needs_segment(self, revision: asyncpg.Record, segment: asyncpg.Record) -> bool:
        return any(
            segment["transcript_id"] == transcript_id and segment["first_message"] < end
            for transcript_id, end in self._reach(revision)
        )

    def _needs_transcript(self, revision: asyncpg.Record, transcript: asyncpg.Record) -> bool:
        """Whether the way to a revision's messages leads through a transcript."""
        reached = dict(self._reach(revision))
        wanted, step = transcript["transcript_id"], revision["transcript_id"]
        way = []
        while reached and step is not None:
            way.append(step)
            if step == list(reached)[-1]:
                return wanted in way
            step = self._transcripts[step]["parent_transcript_id"]
        return False


def _needs_value(revision: asyncpg.Record, value: asyncpg.Record) -> bool:
    digests = revision["value_digests"] or b""
    return value["digest"] in [digests[n : n + DIGEST_SIZE] for n in range(0, len(digests), DIGEST_SIZE)]


def _key(table: str, row: asyncpg.Record) -> str:
    def literal(value: object) -> str:
        return f"'\\x{value.hex()}'" if isinstance(value, bytes) else str(value)

    return " AND ".join(f"{column} = {literal(row[column])}" for column in KEYS[table])


def flip(column: str, at: int = 5) -> str:
    """Return an assignment that turns one bit of one byte, where there is a byte."""
    byte = f"{at} % length({column})"
    turned = f"set_byte({column}, {byte}, get_byte({column}, {byte}) # (1 << ({at} % 8)))"
    return f"{column} = CASE WHEN length({column}) > 0 THEN {turned} ELSE {column} END"


DELETE = ""

# Table, what is done to each of its rows (an assignment or DELETE), and whether who needs the row must notice.
DAMAGE: list[tuple[str, str, bool]] = [
    *(("transcript_segments", flip(column, at), True) for column in ("payload", "digest") for at in (0, 77)),
    ("transcript_segments", "payload = substring(payload FOR length(payload) - 1)", True),
    ("transcript_segments", "payload = ''", True),
    ("transcript_segments", "codec = 7", True),
    ("transcript_segments", "codec = 1 - codec", True),
    ("transcript_segments", "raw_size = raw_size + 1", True),
    ("transcript_segments", "raw_size = -1", True),
    ("transcript_segments", "raw_size = 2147483647", True),
    ("transcript_segments", "checksum = checksum # 1", True),
    ("transcript_segments", "message_count = message_count + 1", True),
    ("transcript_segments", "message_count = 0", True),
    ("transcript_segments", DELETE, True),
    *(("revisions", flip(column, at), True) for column in ("state", "digest", "state_digest") for at in (0, 77)),
    ("revisions", flip("value_digests"), True),
    ("revisions", "state = substring(state FOR length(state) - 1)", True),
    ("revisions", "value_digests = value_digests || '\\x00'", True),
    ("revisions", "state_codec = 7", True),
    ("revisions", "state_raw_size = 2147483647", True),
    ("revisions", "checksum = checksum # 1", True),
    ("revisions", "message_count = message_count + 1", True),
    ("revisions", "size_bytes = size_bytes + 1", True),
    ("revisions", flip("fingerprint"), False),
    *(("state_values", flip(column, at), True) for column in ("payload", "digest") for at in (0, 77)),
    ("state_values", "payload = substring(payload FOR length(payload) - 1)", True),
    ("state_values", "codec = 7", True),
    ("state_values", "raw_size = -1", True),
    ("state_values", "checksum = checksum # 1", True),
    ("state_values", DELETE, True),
    ("sessions", flip("head_digest"), False),
    ("transcripts", flip("parent_digest"), False),
    ("transcripts", DELETE, True),
]


@pytest.fixture
async def process(server: ServerFactory, database_url: str) -> ServerProcess:
    return server("--log-level=debug", database_url=database_url)


@pytest.fixture
async def client(process: ServerProcess) -> AsyncIterator[SessionClient]:
    async with SessionClient(process.address, retry=NO_RETRY) as opened:
        yield opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    async with connected(database_url) as connection:
        await connection.execute("SET synchronous_commit = off")  # what is damaged here need not survive
        yield connection


@pytest.mark.parametrize("packed", [False, True])
async def test_damage_harms_what_needs_the_row_and_nothing_else(
    process: ServerProcess,
    client: SessionClient,
    database: "asyncpg.Connection[asyncpg.Record]",
    database_url: str,
    packed: bool,
) -> None:
    saved = await fill(client)
    if packed:
        await pack(database_url)
    model = await Model.read(database)
    for table in KEYS:
        await database.execute(f"CREATE TABLE kept_{table} AS TABLE {table}")
    assert_shared(model)
    done = 0
    for table, change, matters in DAMAGE:
        for row in model.rows(table):
            await damage(database, row, change)
            if not await database.fetch(f"TABLE kept_{table} EXCEPT TABLE {table}"):
                continue  # the column was empty
            assert await lost(client, saved) == (row.needed_by if matters else set()), (change, row)
            await database.execute(f"DELETE FROM {table}; INSERT INTO {table} TABLE kept_{table}")  # noqa: S608 - constants
            done += 1
    assert done > 150
    assert await lost(client, saved) == set()
    assert_quiet(process)


@pytest.mark.parametrize("batch", range(3))
async def test_a_self_contained_save_heals(
    process: ServerProcess, client: SessionClient, database: "asyncpg.Connection[asyncpg.Record]", batch: int
) -> None:
    for number, (table, change, matters) in enumerate(DAMAGE[batch::3]):
        name = f"heals {number}"
        head = await history(client, name)
        rows = (await Model.read(database)).rows(table)
        for row in rows:
            if (name, head) in row.needed_by or table == "sessions":
                await damage(database, row, change)
        broken = {(name, head): AgentState()}
        if matters:
            assert await lost(client, broken) == {(name, head)}, change
            with pytest.raises(CorruptData) as caught:
                await client.restore(AGENT, name)
            assert caught.value.revision == head
            assert (await client.get_session(AGENT, name)).last_restore_time.seconds == 0
            await saves(client, name, state("a", "b", "X", "Y", big=BIG), self_contained=True)
        await saves(client, name, state("a", "b", "X", "Y", "Z", big=BIG))
        await saves(client, name, state("a", "b", "X", "other", big=BIG, other=OTHER))
        await saves(client, name, state("a", "b"))
        await saves(client, name, state("a", "b", "c", big=BIG))
    assert_quiet(process)


async def test_a_missing_head_is_damage(
    process: ServerProcess, client: SessionClient, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    head = await history(client, "s")
    await database.execute("DELETE FROM revisions WHERE revision = $1", head)
    for revision in (None, head):
        with pytest.raises(CorruptData) as caught:
            await client.restore(AGENT, "s", revision=revision)
        assert caught.value.revision == head
    await saves(client, "s", state("a", "new"), self_contained=True)
    await saves(client, "s", state("a", "new", "and newer"))
    assert_quiet(process)


async def pack(database_url: str) -> None:
    """Make one segment of every transcript's."""
    opened = await Database.connect(database_url, role=ROLE, pool_size=1)
    try:
        heard = Heard()
        await Packer(opened, Rests(0, 0), heard, take_over=True).finish()
    finally:
        await opened.close()
    assert heard.segments > 1


async def history(client: SessionClient, name: str) -> int:
    """Save a session whose head needs rows of every table, and return the head's number."""
    await client.save(AGENT, name, state("a", "b", "c", "d", other=OTHER))
    saved = await client.save(AGENT, name, state("a", "b", "X", "Y", big=BIG))
    return saved.revision.revision


async def saves(client: SessionClient, name: str, one: AgentState, *, self_contained: bool = False) -> None:
    """Save, and check that it restores."""
    saved = await client.save(AGENT, name, one, self_contained=self_contained)
    expected = AgentState(agent_id=AGENT, loop_state="LOOP_STATE_IDLE")
    expected.MergeFrom(one)
    restored = await client.restore(AGENT, name)
    assert restored.revision == saved.revision
    assert restored.agent_state == expected


async def damage(database: "asyncpg.Connection[asyncpg.Record]", row: Row, change: str) -> None:
    action = f"UPDATE {row.table} SET {change}" if change else f"DELETE FROM {row.table}"  # noqa: S608 - constants
    assert (await database.execute(f"{action} WHERE {row.key}")).endswith(" 1")


async def lost(client: SessionClient, saved: Mapping[Name, AgentState]) -> set[Name]:
    """Return which revisions are DATA_LOSS; all others must be what was saved."""
    ends = await asyncio.gather(*(_is_lost(client, name, one) for name, one in saved.items()))
    return {name for name, end in zip(saved, ends, strict=True) if end}


async def _is_lost(client: SessionClient, name: Name, expected: AgentState) -> bool:
    session_name, revision = name
    try:
        found = await client.get_revision(AGENT, session_name, revision=revision)
    except CorruptData as error:
        told = error
    else:
        assert found.agent_state == expected, name
        return False
    assert told.revision == revision
    assert MARK not in told.message
    return True


def assert_shared(model: Model) -> None:
    """Make sure that there is something to tell apart: rows that one needs, that many need, that not all need."""
    for table in ("transcript_segments", "state_values"):
        assert len({len(row.needed_by) for row in model.rows(table)}) > 1
    assert max(len(row.needed_by) for row in model.rows("transcript_segments")) < len(model.rows("revisions"))


def assert_quiet(process: ServerProcess) -> None:
    """Nothing that was saved is in the log, and nothing went wrong that nobody foresaw."""
    assert not [line for line in process.lines if MARK in line or "Traceback" in line]
    assert not [line for line in process.log if "exception" in line or line.get("code") == "INTERNAL"]
    assert [line for line in process.log if line.get("code") == "DATA_LOSS"]
