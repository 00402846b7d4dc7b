"""Talks to benchmarks.echo and prints how fast: run with any release of gRPC, and nothing else of the project's.

Messages of 2 KB: over one stream, each sent when the one before is back; by calls, one and sixteen at once.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.echo import ECHO, STREAM

MESSAGE = bytes(2048)
TIMES = 3000
"""Messages of each kind, after a tenth of them that is not counted."""


async def _seconds(one: Callable[[], Awaitable[None]], times: int, at_once: int) -> float:
    """Return the seconds that each took, all being equal."""

    async def several() -> None:
        for _ in range(times // at_once):
            await one()

    begin = time.perf_counter()
    await asyncio.gather(*(several() for _ in range(at_once)))
    return (time.perf_counter() - begin) / times


async def _measure(address: str) -> dict[str, float]:
    async with grpc.aio.insecure_channel(address) as channel:
        stream = channel.stream_stream(STREAM)()
        unary = channel.unary_unary(ECHO)

        async def over_the_stream() -> None:
            await stream.write(MESSAGE)
            assert await stream.read() == MESSAGE

        async def by_a_call() -> None:
            assert await unary(MESSAGE) == MESSAGE

        found = {}
        for name, one, at_once in (
            ("stream, one at a time", over_the_stream, 1),
            ("calls, one at a time", by_a_call, 1),
            ("calls, 16 at once", by_a_call, 16),
        ):
            await _seconds(one, TIMES // 10, at_once)
            found[name] = await _seconds(one, TIMES, at_once)
        await stream.done_writing()
        return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(sys.argv[1]))))
