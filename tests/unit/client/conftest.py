from collections.abc import AsyncIterator

import pytest
from agent_sessions import RetryPolicy, SessionClient

from tests.unit.client.scripted_server import ScriptedServer, saved

FAST = RetryPolicy(initial_backoff=0.01, max_backoff=0.05)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer(script=[saved()])
    await scripted.start()
    yield scripted
    await scripted.stop()


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[SessionClient]:
    async with SessionClient(server.target, timeout=10, retry=FAST, client_id="worker-1") as client:
        yield client
