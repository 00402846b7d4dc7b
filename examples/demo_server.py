"""A server of the demo's own: free ports, a temporary data directory, nothing left at the end."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0


@contextmanager
def _later(*numbers: signal.Signals) -> Iterator[None]:
    """Answer these signals only at the end; blocked ones would be blocked in a child, too."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda got, _: came.append(got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class DemoServer:
    """`session-service serve` as a process; can be killed and started again on the same data."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="session-demo-"))
        self._process: subprocess.Popen[str] | None = None
        self._log: list[str] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        """Return the server; it is not started yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it, and what a kill left behind, and remove its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self._directory)

    @property
    def data_dir(self) -> Path:
        """Where its PostgreSQL keeps the data."""
        return self._directory / "data"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None  # noqa: S101 - asked for only while it runs
        return self._process.pid

    @property
    def address(self) -> str:
        """Where it answers RPCs."""
        return str(self._wait_for("listening")["address"])

    @property
    def database_url(self) -> str:
        """Of its embedded PostgreSQL, as the owner."""
        return str(self._wait_for("PostgreSQL is embedded")["url"])

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._log = []
        with _later(signal.SIGINT, signal.SIGTERM):  # or a server could run that nobody stops
            self._process = subprocess.Popen(  # noqa: S603 - this Python, with arguments made here
                [
                    *(sys.executable, "-m", "session_service", "serve", "--log-format=json"),
                    *("--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", f"--data-dir={self.data_dir}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,  # ctrl-C reaches the demo alone, which then stops the server
            )
        threading.Thread(target=self._read, args=(self._process, self._log), daemon=True).start()
        self._wait_for("listening")

    def kill(self) -> None:
        """SIGKILL: no chance to put anything in order."""
        assert self._process is not None  # noqa: S101 - killed only while it runs
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the server, if it runs, and its PostgreSQL in any case."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
        # Imported here, so that a mistake in the installation is told by the server first.
        from session_service.postgres.embedded import stop_leftover

        stop_leftover(self.data_dir / "pgdata")

    def _wait_for(self, event: str) -> dict[str, Any]:
        """Return the first log line of the event."""
        with self._changed:
            self._changed.wait_for(lambda: self._find(event) or self._has_ended(), _START_TIMEOUT)
        found = self._find(event)
        if found is None:
            raise RuntimeError("the server does not start:\n" + "\n".join(self._log[-20:]))
        return found

    def _find(self, event: str) -> dict[str, Any] | None:
        for line in self._log:
            if line.startswith("{") and (entry := json.loads(line))["event"] == event:
                return dict(entry)
        return None

    def _has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def _read(self, process: "subprocess.Popen[str]", log: list[str]) -> None:
        assert process.stderr is not None  # noqa: S101 - a pipe, as asked for above
        with process.stderr as lines:
            for line in lines:
                with self._changed:
                    log.append(line.rstrip("\n"))
                    self._changed.notify_all()
        process.wait()
        with self._changed:
            self._changed.notify_all()
