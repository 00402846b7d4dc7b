"""A client process that watches and restores, by the generated stubs; see benchmarks.commands.

Times are time.monotonic(), which the processes of one machine share.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
from agent_sessions.v1 import session_pb2, session_service_pb2_grpc
from agent_sessions.v1 import session_service_pb2 as pb

from benchmarks import commands
from benchmarks.commands import Answer
from benchmarks.watching import floor

SESSION = "watched"
"""Each agent has one session."""
AT_ONCE = 32
"""Saves that prepare the sessions."""
IN_FLIGHT = 200
"""Restores at most: gRPC's server drops calls that it has no time for when there are 1,000 of them."""
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Else channels of one process to the same address share one."""
TIMEOUT = 60.0
"""Seconds for what takes none."""


class Worker:
    """Calls one server."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channel = grpc.aio.insecure_channel(target)
        self._stub: Any = session_service_pb2_grpc.SessionServiceStub(self._channel)
        self._channels: list[grpc.aio.Channel] = []
        self._watches: list[asyncio.Task[None]] = []
        self._receipts: dict[str, float] = {}

    async def save(self, agents: Sequence[str]) -> Answer:
        """Save a small session of each agent."""
        places = asyncio.Semaphore(AT_ONCE)

        async def save(agent_id: str) -> None:
            async with places:
                state = session_pb2.AgentState(message_history=[session_pb2.Message(text="hello")])
                await self._stub.SaveSession(
                    pb.SaveSessionRequest(agent_id=agent_id, session_name=SESSION, snapshot=state)
                )

        await asyncio.gather(*map(save, agents))
        return {}

    async def watch(self, requests: Sequence[Mapping[str, Any]], streams_per_channel: int) -> Answer:
        """Open a watch for each request; they have begun when this is answered."""
        begun: list[asyncio.Future[None]] = []
        for place in range(0, len(requests), streams_per_channel):
            channel = grpc.aio.insecure_channel(self._target, OWN_CONNECTION)
            self._channels.append(channel)
            stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)
            for request in requests[place : place + streams_per_channel]:
                begun.append(asyncio.get_running_loop().create_future())
                call = stub.WatchSessions(pb.WatchSessionsRequest(**request))
                self._watches.append(asyncio.create_task(self._receive(call, begun[-1])))
        await asyncio.wait_for(asyncio.gather(*begun), TIMEOUT)
        return {}

    async def _receive(self, call: Any, begun: "asyncio.Future[None]") -> None:
        """Note when each event comes; raises through `begun` if the stream does not even begin."""
        try:
            async for message in call:
                kind = message.WhichOneof("message")
                if kind == "event":
                    self._receipts[message.event.request_id] = time.monotonic()
                elif kind == "created":
                    begun.set_result(None)
        except Exception as failed:
            if begun.done():
                raise
            begun.set_exception(failed)

    async def received(self) -> Answer:
        """Return when each event came that has come since this was asked last, by request_id.

        Raises what a watch failed with.
        """
        self._raise_failures()
        receipts, self._receipts = self._receipts, {}
        return {"receipts": receipts}

    def _raise_failures(self) -> None:
        ended = [watch for watch in self._watches if watch.done()]
        for watch in ended:
            watch.result()
        if ended:
            raise RuntimeError(f"{len(ended)} watches ended by themselves")

    async def stop_watching(self) -> Answer:
        """End all watches; raises what one of them failed with before."""
        self._raise_failures()
        for watch in self._watches:
            watch.cancel()
        for watch in self._watches:
            with suppress(asyncio.CancelledError):
                await watch
        await asyncio.gather(*(channel.close() for channel in self._channels))
        self._channels, self._watches = [], []
        self._receipts.clear()
        return {}

    async def restore(self, agents: Sequence[str], count: int, per_second: float, seed: int) -> Answer:
        """Restore sessions at random times, so many a second on average, whether those before are answered or not.

        But no more than IN_FLIGHT at once: a machine that is too slow for the rate is not buried in calls.
        Returns when each request was sent and answered, by its id.
        """
        chance, order = random.Random(seed), list(agents)  # noqa: S311 - an order, no secret
        chance.shuffle(order)
        due = time.monotonic()
        restores, places = [], asyncio.Semaphore(IN_FLIGHT)
        for number in range(count):
            due += chance.uniform(0, 2 / per_second)
            await asyncio.sleep(max(0, due - time.monotonic()))
            await places.acquire()
            restores.append(asyncio.create_task(self._restore(order[number % len(order)], places)))
        return {"calls": dict(await asyncio.gather(*restores))}

    async def _restore(self, agent_id: str, places: asyncio.Semaphore) -> tuple[str, tuple[float, float]]:
        request_id = str(uuid.uuid4())
        request = pb.RestoreSessionRequest(agent_id=agent_id, session_name=SESSION, request_id=request_id)
        sent = time.monotonic()
        await self._stub.RestoreSession(request)
        places.release()
        return request_id, (sent, time.monotonic())

    async def floor(self, dsn: str, echo: str, count: int) -> Answer:
        """Time what a delivery is made of."""
        return await floor.measure(dsn, echo, count)

    async def close(self) -> Answer:
        """Disconnect."""
        await self._channel.close()
        return {}


if __name__ == "__main__":
    commands.answer(Worker)
