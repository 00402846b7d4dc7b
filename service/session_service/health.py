"""Ready or not: follows the database, and tells grpc.health, /readyz and the metric."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from grpc_health.v1 import health
from grpc_health.v1.health_pb2 import HealthCheckResponse

from session_service.metrics import Metrics

_INTERVAL = 1.0
_PING_TIMEOUT = 3.0
_SERVICES = ("", "agent_sessions.v1.SessionService")
_log = structlog.stdlib.get_logger(__name__)


class Readiness:
    """SERVING while the database answers and the server does not drain."""

    def __init__(self, metrics: Metrics) -> None:
        self.servicer = health.aio.HealthServicer()
        self._metrics = metrics
        self._database_up = False
        self._draining = False
        self._metrics.database(False)

    def is_ready(self) -> bool:
        """Tell whether calls can be answered. For any thread."""
        return self._database_up and not self._draining

    async def database(self, up: bool) -> None:
        """Note whether the database answers."""
        self._database_up = up
        self._metrics.database(up)
        await self._tell()

    async def drain(self) -> None:
        """Be NOT_SERVING from now on, whatever the database does."""
        self._draining = True
        await self._tell()
        await self.servicer.enter_graceful_shutdown()

    async def _tell(self) -> None:
        status = HealthCheckResponse.SERVING if self.is_ready() else HealthCheckResponse.NOT_SERVING
        for service in _SERVICES:
            await self.servicer.set(service, status)

    async def follow(self, ping: Callable[[], Awaitable[None]]) -> None:
        """Ask the database about once a second, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            problem = await _problem(ping)
            if (problem is None) != self._database_up:
                _tell_change(problem)
            await self.database(problem is None)


async def _problem(ping: Callable[[], Awaitable[None]]) -> str | None:
    try:
        # Not wait_for: until Python 3.12 it loses a cancellation that comes together with the answer.
        async with asyncio.timeout(_PING_TIMEOUT):
            await ping()
    except Exception as error:
        # Whatever it is, the database was not reached; the type alone holds no secret.
        return type(error).__name__
    return None


def _tell_change(problem: str | None) -> None:
    if problem is None:
        _log.info("database is back")
    else:
        _log.error("database lost", problem=problem)


@contextlib.asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run something beside the block, and end it with the block."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        # Again and again: what is awaited within may lose one, and a stop must not wait for ever.
        while not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=_INTERVAL)
        if not task.cancelled():
            task.exception()  # marks it as seen
