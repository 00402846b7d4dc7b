"""What an event cannot do without on its way: a notification of PostgreSQL, and a message of a stream."""

import asyncio
import random
import time
from typing import Any

import asyncpg
import grpc

from benchmarks.echo import STREAM

CHANNEL = "benchmarks"
MESSAGE = bytes(300)
"""About what a watcher gets for an event."""
PAUSE = 0.02
"""Seconds at most between two of each, as between the events that are measured."""
WARM_UP = 20


async def measure(dsn: str, echo: str, count: int) -> dict[str, Any]:
    """Return the seconds of each notification between two connections, and of each message there and back."""
    teller, hearer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    chance = random.Random(count)  # noqa: S311 - a pause, no secret
    found: dict[str, Any] = {"notify": [], "echo": []}
    try:
        async with grpc.aio.insecure_channel(echo) as channel:
            stream: Any = channel.stream_stream(STREAM)()
            heard = asyncio.Queue[str]()
            await hearer.add_listener(CHANNEL, lambda *said: heard.put_nowait(str(said[-1])))
            for repetition in range(-WARM_UP, count):
                await asyncio.sleep(chance.uniform(0, PAUSE))
                begin = time.perf_counter()
                telling = asyncio.create_task(teller.execute("SELECT pg_notify($1, $2)", CHANNEL, str(repetition)))
                await heard.get()
                told = time.perf_counter()
                await telling
                turn = time.perf_counter()
                await stream.write(MESSAGE)
                assert await stream.read() == MESSAGE
                if repetition >= 0:
                    found["notify"].append(told - begin)
                    found["echo"].append(time.perf_counter() - turn)
            stream.cancel()
    finally:
        await teller.close()
        await hearer.close()
    return found
