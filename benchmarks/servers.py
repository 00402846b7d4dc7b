"""The service's servers of a measurement."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.processes import READY_TIMEOUT, address_of, listening

SERVICE = "session_service"
"""The module that is run, unless a case needs a server that lacks something."""


class Server(NamedTuple):
    """One that runs."""

    address: str
    """HOST:PORT of its RPCs."""
    ops_address: str
    """HOST:PORT of its metrics."""
    pid: int


@asynccontextmanager
async def server(
    dsn: str, *flags: str, packing: bool = False, run: tuple[str, ...] = (SERVICE,)
) -> AsyncIterator[Server]:
    """Run the service on a database, and give it once it is SERVING.

    With its default settings, but for `flags`, and for housekeeping: that would now and then be measured together with
    something else. So it is off or, with `packing`, at work all the time within its default budget. `run`: a module and
    its first arguments, if not the service itself.
    """
    housekeeping = "--pack-after=0" if packing else "--housekeeping-budget=0"
    always = ("--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--log-format=json", housekeeping)
    async with listening(*run, "serve", f"--database-url={dsn}", *always, *flags) as process:
        started = Server(
            await address_of(process),
            await address_of(process, "operational HTTP listening"),
            process.process.pid,
        )
        await _wait_until_serving(started.address)
        yield started


async def _wait_until_serving(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=READY_TIMEOUT, wait_for_ready=True)
        async for answer in watch:
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                watch.cancel()
                return
