"""sessionctl as a process of its own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fixtures.coverage import python_arguments
from tests.fixtures.servers import clean_environment


class Sessionctl:
    """Runs `sessionctl` against one server."""

    def __init__(self, address: str, *, measured: bool = True) -> None:
        self.address = address
        self._python = [sys.executable, "-W", "error", *python_arguments("agent_sessions.cli.main", measured=measured)]

    def environment(self) -> dict[str, str]:
        return clean_environment() | {"SESSIONCTL_TARGET": self.address, "COLUMNS": "80"}

    def __call__(
        self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def command(self, *arguments: str | Path) -> list[str]:
        return [*self._python, *map(str, arguments)]

    def lines(self, *arguments: str | Path, stdin: str | None = None) -> list[dict[str, Any]]:
        """Return the JSON documents that a successful command prints."""
        done = self(*arguments, "--output", "json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def document(self, *arguments: str | Path, stdin: str | None = None) -> dict[str, Any]:
        (document,) = self.lines(*arguments, stdin=stdin)
        return document

    def failure(self, *arguments: str | Path, stdin: str | None = None) -> tuple[int, str]:
        """Return the exit code and the line of a command that fails."""
        done = self(*arguments, stdin=stdin)
        assert not done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith("sessionctl")
        return done.returncode, line
