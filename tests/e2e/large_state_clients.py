"""Workers with large states: each saves one, restores it and compares. Run as a program beside a server.

Usage: python -m tests.e2e.large_state_clients ADDRESS AGENT CLIENTS MEBIBYTES
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator

from agent_sessions import AgentState, Message, Payload, SessionClient

TIMEOUT = 900.0
MIB = 1 << 20


def messages(seed: int, size: int) -> Iterator[Message]:
    """Give so many bytes of messages: most a few KiB, some larger than a segment; half of it can be compressed."""
    random_bytes = random.Random(seed).randbytes  # noqa: S311  not a secret
    while size > 0:
        length = min(size, random.Random(size).choice((200, 2000, 2000, 20_000, 1_500_000)))  # noqa: S311  as above
        half = random_bytes(length // 2)
        yield Message(payload=Payload(data=half + b"compressible " * (length // 26)))
        size -= length


def state(seed: int, mebibytes: float) -> AgentState:
    """Return a state of about that size."""
    return AgentState(
        message_history=messages(seed, round(mebibytes * MIB)),
        values={"notes": Payload(data=b"value " * 100_000)},
    )


async def work(client: SessionClient, agent_id: str, number: int, mebibytes: float) -> None:
    """Save, restore, compare."""
    saved = state(number, mebibytes)
    name = f"large-{number}"
    answer = await client.save(agent_id, name, saved, timeout=TIMEOUT)
    assert answer.revision.revision == 1
    restored = (await client.restore(agent_id, name, timeout=TIMEOUT)).agent_state
    assert (restored.agent_id, restored.loop_state) == (agent_id, 1)
    assert restored.message_history == saved.message_history
    assert restored.values == saved.values


async def main(address: str, agent_id: str, clients: int, mebibytes: float) -> None:
    """Let all of them work at once, each over a connection of its own."""
    began = time.monotonic()

    async def one(number: int) -> None:
        async with SessionClient(address, channel_options=(("grpc.use_local_subchannel_pool", 1),)) as client:
            await work(client, agent_id, number, mebibytes)

    await asyncio.gather(*map(one, range(clients)))
    print(f"{clients} states of {mebibytes:g} MiB saved, restored and equal in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
