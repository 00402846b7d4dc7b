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


@pytest.fixture(params=[True, False], ids=["stream", "unary"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def client(server: ScriptedServer, stream: bool) -> AsyncIterator[SessionClient]:
    """Return a client; what holds for saves in a stream holds for saves by themselves."""
    async with SessionClient(server.target, timeout=10, retry=FAST, client_id="worker-1", stream=stream) as client:
        yield client
