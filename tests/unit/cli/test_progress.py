"""Progress on a terminal, elsewhere, and not at all."""

import io
from itertools import count

from agent_sessions.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, seconds_per_step: float, *, quiet: bool = False) -> str:
    clock = count(0, seconds_per_step)
    with Progress(stream, 100, "saves", quiet=quiet, clock=lambda: next(clock)) as progress:
        for _ in range(100):
            progress.advance()
    return stream.getvalue()


def test_a_plain_line_every_five_seconds() -> None:
    lines = run(io.StringIO(), 1).splitlines()
    assert len(lines) == 20
    assert lines[0] == "5/100 saves, 1/s, 1:35 left"
    assert lines[-1] == "100/100 saves, 1/s, 0:00 left"


def test_a_bar_that_is_erased() -> None:
    told = run(Terminal(), 1 / 16)
    bars = told.split("\r\x1b[K")
    assert (
        len(bars) == 52
    )  # every second step is 0.125 s after the last told; and what comes before the first and after the last
    assert bars[25] == f"[{'#' * 15}{'.' * 15}] 50/100 saves, 16/s, 0:03 left"
    assert bars[-1] == ""


def test_nothing_when_quiet() -> None:
    assert run(io.StringIO(), 1, quiet=True) == ""
    assert run(Terminal(), 1, quiet=True) == ""


def test_a_quick_run_tells_nothing() -> None:
    assert run(io.StringIO(), 0.001) == ""
