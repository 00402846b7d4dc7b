"""Times reads of a session, saved message by message and then packed, in turns with what such a read is made of."""

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import Any

import asyncpg
import grpc
from agent_sessions import SessionClient
from agent_sessions.connection import DEFAULT_CHANNEL_OPTIONS

from benchmarks import corpus, explain, load
from benchmarks.cases import SYNTHETIC_BYTES, ReadSizes
from benchmarks.echo import AGAIN, ECHO
from benchmarks.processes import pack

WARM_UP = 20
"""Repetitions before those that count."""
# A row per message: that is what saves message by message leave, unless each of them writes everything
# again. One bytea of the same size is no faster: TOAST keeps it in rows of 2 KB.
SCHEMA = """
CREATE SCHEMA direct;
CREATE TABLE direct.messages (
    session_id bigint NOT NULL,
    position integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (session_id, position)
);
CREATE TABLE direct.events (event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, create_time timestamptz NOT NULL)
"""
FILL = "INSERT INTO direct.messages (session_id, position, data) VALUES (1, $1, $2)"
SELECT = "SELECT data FROM direct.messages WHERE session_id = $1 ORDER BY position"
COMMIT = "INSERT INTO direct.events (create_time) VALUES (now())"
Call = Callable[[], Awaitable[Any]]


async def measure(store: Any, dsn: str, echo: str, sizes: ReadSizes) -> dict[str, Any]:
    """Save two sessions, read them in all ways, pack them and read the shorter one again; returns fields of a Reading.

    The store is ours, and open.
    """
    short, long = (_session(length) for length in (sizes.messages, sizes.long_messages))
    await load.save(store, [short, long], in_flight=2)
    await load.restore(store, [short, long])
    client: SessionClient = store.client
    state = (await client.get_revision(short.agent_id, short.session_name)).agent_state
    assert state is not None
    rows, data = [message.SerializeToString() for message in state.message_history], state.SerializeToString()
    async with _direct(dsn, rows) as direct, grpc.aio.insecure_channel(echo, DEFAULT_CHANNEL_OPTIONS) as channel:
        send, again = channel.unary_unary(ECHO), channel.unary_unary(AGAIN)
        assert await send(data) == await again(b"") == data
        assert [row["data"] for row in await direct.fetch(SELECT, 1)] == rows
        calls: Mapping[str, Call] = {
            "get": lambda: client.get_revision(short.agent_id, short.session_name),
            "restore": lambda: client.restore(short.agent_id, short.session_name),
            "select": lambda: direct.fetch(SELECT, 1),
            "echo": lambda: send(data),
            "again": lambda: again(b""),
            "commit": lambda: direct.execute(COMMIT),
        }
        seconds = await _in_turns(calls, sizes.repetitions)
        seconds |= await _long(client, long, sizes)
        plans = {
            "long": await explain.read(dsn, long.agent_id, long.session_name, 0),
            "limited": await explain.read(dsn, long.agent_id, long.session_name, sizes.message_limit),
        }
        assert (await pack(dsn))["messages"] >= sizes.messages
        packed_seconds = await _in_turns(calls, sizes.repetitions)
        load.compare(short, await store.revision(short, sizes.messages))
    return {"payload_bytes": len(data), "seconds": seconds, "plans": plans, "packed_seconds": packed_seconds}


async def _long(client: SessionClient, long: corpus.Conversation, sizes: ReadSizes) -> dict[str, float]:
    return await _in_turns(
        {
            "long": lambda: client.restore(long.agent_id, long.session_name),
            "limited": lambda: client.restore(long.agent_id, long.session_name, message_limit=sizes.message_limit),
        },
        sizes.long_repetitions,
    )


def _session(length: int) -> corpus.Conversation:
    return corpus.synthetic(length, SYNTHETIC_BYTES, length, seed=length)[0]


@asynccontextmanager
async def _direct(dsn: str, rows: Sequence[bytes]) -> AsyncIterator[Any]:
    """Give a connection to tables of our own that hold the same bytes."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(SCHEMA)
        await connection.executemany(FILL, list(enumerate(rows)))
        await connection.execute("VACUUM ANALYZE direct.messages")
        yield connection
    finally:
        await connection.close()


async def _in_turns(calls: Mapping[str, Call], repetitions: int) -> dict[str, float]:
    """Return the median seconds of each call. The order is drawn anew each time: none profits from the one before."""
    chance, order = random.Random(0), list(calls)  # noqa: S311 - an order, no secret
    latencies: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(WARM_UP + repetitions):
        chance.shuffle(order)
        for name in order:
            begin = time.perf_counter()
            await calls[name]()
            if repetition >= WARM_UP:
                latencies[name].append(time.perf_counter() - begin)
    return {name: median(found) for name, found in latencies.items()}
