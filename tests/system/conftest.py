"""What the system tests share: an image, a database, and an account of the time."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import machine
from .base_image import REPOSITORY, base_root_filesystem, wheels
from .container_engine import ContainerEngine
from .database import DatabaseUrls, Postgres
from .stopwatch import DURATIONS, measured

BASE_IMAGE = "localhost/python-base:3.11"
IMAGE = "localhost/session-service:system-test"


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """Return a directory that is removed at the end. Its path is short: podman allows 50 characters."""
    path = Path(tempfile.mkdtemp(prefix="session-system-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def engine(directory: Path) -> Iterator[ContainerEngine]:
    """Return a container engine whose storage is removed at the end."""
    machine.require_root()
    for name in ("buildah", "podman", "runc", "debootstrap"):
        machine.program(name)
    storage = directory / "containers"
    storage.mkdir()
    engine = ContainerEngine(storage)
    yield engine
    with measured("removing containers and images"):
        engine.remove_everything()


@pytest.fixture(scope="session")
def image(engine: ContainerEngine) -> str:
    """Return the name of the image, built from the working tree."""
    root_filesystem, packages = base_root_filesystem(), wheels()
    with measured("base image"):
        engine.import_image(root_filesystem, BASE_IMAGE)
    with measured("image"):
        arguments = {"VERSION": "0.0.0-test", "REVISION": "none"}
        engine.build(REPOSITORY, IMAGE, base=BASE_IMAGE, wheels=packages, arguments=arguments)
    return IMAGE


@pytest.fixture(scope="session")
def postgres(directory: Path) -> Iterator[Postgres]:
    """Return a PostgreSQL that is stopped at the end."""
    machine.require_root()
    server = Postgres(directory / "pgdata")
    try:
        with measured("PostgreSQL"):
            server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def database(postgres: Postgres) -> DatabaseUrls:
    """Return an empty database."""
    return postgres.new_database()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell where the time went."""
    if DURATIONS:
        terminalreporter.write_sep("-", "system tests: where the time went")
        for what, seconds in DURATIONS:
            terminalreporter.write_line(f"{seconds:7.1f} s  {what}")
