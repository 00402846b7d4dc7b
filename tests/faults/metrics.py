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


def _started(server: ServerProcess, method: str) -> float:
    lines = _scrape(server).splitlines()
    wanted = [line for line in lines if line.startswith("grpc_server_started_total{") and f'"{method}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in wanted)


async def value_of(server: ServerProcess, name: str) -> float:
    """Return a metric without labels."""
    text = await asyncio.to_thread(_scrape, server)
    (value,) = (line.split()[1] for line in text.splitlines() if line.startswith(f"{name} "))
    return float(value)


def _scrape(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{server.ops_address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
