"""The demo, run for real: it tells what is so, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fixtures.cleanliness import PREFIX
from tests.fixtures.servers import clean_environment

DEMO = Path(__file__).parents[2] / "examples/demo.py"
FLIPS = "set_byte(payload, 9, get_byte(payload, 9) # 1)"


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a short path for the demo's directory: PostgreSQL's socket stays inside it."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as path:
        yield Path(path)


def environment(place: Path) -> dict[str, str]:
    return clean_environment() | {"TMPDIR": str(place)}


def assert_nothing_left(place: Path) -> None:
    assert not list(place.iterdir())
    assert not [process.pid for process in psutil.process_iter(["cmdline"]) if str(place) in shown(process)]


def shown(process: psutil.Process) -> str:
    return " ".join(process.info["cmdline"] or ())


def test_every_claim_is_checked_and_nothing_is_left(place: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)], env=environment(place), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") >= 15
    assert "✗" not in done.stdout
    assert "RevisionMismatch" in done.stdout
    assert "InvalidField" in done.stdout
    assert "CorruptData" in done.stdout
    assert "\x1b" not in done.stdout
    assert_nothing_left(place)


def test_a_claim_that_does_not_hold_fails_it(place: Path) -> None:
    """Instead of flipping a byte, leave it as it is."""
    copy = place / "copy"
    copy.mkdir()
    for source in DEMO.parent.glob("demo*.py"):
        text = source.read_text()
        (copy / source.name).write_text(text.replace(FLIPS, "payload") if source == DEMO else text)
    assert FLIPS in DEMO.read_text()
    work = place / "work"
    work.mkdir()
    # The copies are executed where others may write: no byte code beside them.
    done = subprocess.run(
        [sys.executable, "-B", str(copy / DEMO.name)],
        env=environment(work),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "This does not hold: refused with CorruptData" in done.stderr
    assert_nothing_left(work)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, "A server with a real"),
        (signal.SIGINT, 130, "kill -9"),
        (signal.SIGTERM, 143, "What is refused"),
    ],
)
def test_interrupted_it_leaves_nothing(place: Path, number: signal.Signals, code: int, line: str) -> None:
    demo = subprocess.Popen(
        [sys.executable, "-u", str(DEMO)],
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        assert any(line in told for told in demo.stdout)
        os.kill(demo.pid, number)
        _, told = demo.communicate(timeout=60)
    assert demo.returncode == code, told
    assert "Traceback" not in told
    assert_nothing_left(place)
