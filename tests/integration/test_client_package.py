"""The wheel in an empty environment: what it brings, and that it works there."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("client", "service", "migrations", "pyproject.toml", "README.md", "LICENSE")

ALLOWED = {
    "agent-session-service",
    "googleapis-common-protos",
    "grpcio",
    "pip",
    "protobuf",
    "setuptools",
    "typing-extensions",
}

ROUND_TRIP = """
import json, sys
from datetime import datetime, UTC
from importlib.metadata import distribution, version
import agent_sessions
from agent_sessions import State, StateCodec
from agent_sessions.v1 import session_pb2, session_service_pb2, session_service_pb2_grpc
import google.protobuf

state = State(agent_id="a", messages=["hi", {"n": 1}, {"at": datetime.now(UTC)}], values={"raw": b"x"})
codec = StateCodec()
request = session_service_pb2.SaveSessionRequest(snapshot=codec.encode(state), request_id="r")
copy = session_service_pb2.SaveSessionRequest.FromString(request.SerializeToString())
assert copy == request and codec.decode(copy.snapshot) == state
assert not hasattr(agent_sessions, "missing")
assert all(hasattr(agent_sessions, name) for name in agent_sessions.__all__)
print(json.dumps({
    "protobuf": google.protobuf.__version__,
    "typed": (distribution("agent-session-service").locate_file("agent_sessions/py.typed")).is_file(),
    "from": agent_sessions.__file__,
    "server_parts": sorted(m for m in sys.modules if m.startswith(("session_service", "asyncpg"))),
}))
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program and return what it printed; the test fails with its errors if it does."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run([*command], cwd=cwd, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def workshop() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="session-tests-package-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def wheel(workshop: Path) -> Path:
    """Build the wheel from a copy, so that nothing is written into the project."""
    source = workshop / "source"
    source.mkdir()
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", workshop, cwd=source)
    (built,) = workshop.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(workshop: Path, wheel: Path) -> Path:
    """Return the interpreter of an environment that holds the wheel and what it asks for."""
    run(sys.executable, "-m", "venv", workshop / "env")
    python = workshop / "env/bin/python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return python


def installed(python: Path) -> set[str]:
    listed = json.loads(run(python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
    return {entry["name"].lower().replace("_", "-") for entry in listed}


# Building, two installations and a download take longer than a test should.
@pytest.mark.timeout(600)
def test_the_wheel_needs_three_distributions_and_nothing_else(python: Path) -> None:
    names = installed(python)
    assert names <= ALLOWED, f"unexpected: {names - ALLOWED}"
    assert {"agent-session-service", "grpcio", "protobuf", "googleapis-common-protos"} <= names


@pytest.mark.timeout(600)
@pytest.mark.parametrize("protobuf", ["6.33", "7"])
def test_the_round_trip_works_with_protobuf(python: Path, workshop: Path, protobuf: str) -> None:
    wanted = f"protobuf=={protobuf}.*"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted)
    run(python, "-m", "pip", "check", "--disable-pip-version-check")
    facts = json.loads(run(python, "-I", "-W", "error", "-c", ROUND_TRIP, cwd=workshop))
    assert facts["protobuf"].startswith(f"{protobuf}.")
    assert facts["typed"]
    assert facts["from"].startswith(str(workshop))
    assert facts["server_parts"] == []
