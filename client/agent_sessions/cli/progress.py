"""How far a long command is: a bar on a terminal, a plain line every few seconds elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from agent_sessions.cli import human

_BAR_INTERVAL = 0.1
_LINE_INTERVAL = 5.0
_BAR_WIDTH = 30
_ERASE = "\r\x1b[K"


class Progress:
    """Counts steps and tells about them on a stream.

    with Progress(sys.stderr, 100, "saves") as progress:
        progress.advance()
    """

    def __init__(
        self,
        stream: TextIO,
        total: int,
        unit: str,
        *,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._total = total
        self._unit = unit
        self._quiet = quiet
        self._clock = clock
        self._is_bar = stream.isatty()
        self._interval = _BAR_INTERVAL if self._is_bar else _LINE_INTERVAL
        self._done = 0
        self._begin = self._told = clock()

    def __enter__(self) -> Self:
        """Begin to count."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave no bar behind."""
        if self._is_bar and not self._quiet:
            print(_ERASE, end="", file=self._stream, flush=True)

    def advance(self) -> None:
        """Count one step."""
        self._done += 1
        now = self._clock()
        if not self._quiet and now - self._told >= self._interval:
            self._told = now
            self._tell(now - self._begin)

    def _tell(self, elapsed: float) -> None:
        rate = self._done / elapsed
        left = human.duration((self._total - self._done) / rate)
        text = f"{self._done}/{self._total} {self._unit}, {rate:.0f}/s, {left} left"
        if self._is_bar:
            full = _BAR_WIDTH * self._done // self._total
            bar = "#" * full + "." * (_BAR_WIDTH - full)
            print(f"{_ERASE}[{bar}] {text}", end="", file=self._stream, flush=True)
        else:
            print(text, file=self._stream, flush=True)
