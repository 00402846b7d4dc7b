"""Reads a server's metrics."""

import asyncio
import urllib.request

from tests.faults.database import until
from tests.fixtures.servers import ServerProcess


async def until_started(server: ServerProcess, method: str, calls: float) -> None:
    """Wait until so many calls of a method have reached the server since its start."""

    async def reached() -> bool:
        return await started(server, method) >= calls

    await until(reached)


async def started(server: ServerProcess, method: str) -> float:
    """Return how many calls of a method have reached the server since its start."""
    return await asyncio.to_thread(_started, server, method)


async def until_counted(server: ServerProcess, metric: str, least: float, timeout: float = 30) -> None:
    """Wait until a metric, named with its labels, is at least so much."""

    async def reached() -> bool:
        return await asyncio.to_thread(value_of, server, metric) >= least

    await until(reached, timeout)


def value_of(server: ServerProcess, metric: str) -> float:
    """Return the value of a metric, named with its labels; 0 if there is none."""
    wanted = [line for line in _lines(server) if line.startswith(f"{metric} ")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def _started(server: ServerProcess, method: str) -> float:
    wanted = [
        line for line in _lines(server) if line.startswith("grpc_server_started_total{") and f'"{method}"' in line
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


def _lines(server: ServerProcess) -> list[str]:
    with urllib.request.urlopen(f"http://{server.ops_address}/metrics", timeout=10) as answer:
        return list(answer.read().decode().splitlines())
