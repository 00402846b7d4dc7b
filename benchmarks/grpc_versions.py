"""Compares releases of gRPC by what a message costs.

    python -m benchmarks.grpc_versions 1.78.2 1.85.3

Each release gets an environment of its own, in a temporary directory, with a server and a client. They take turns, in
an order that is turned round each time; what is printed are medians, and ratios to the first release of the same turn.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
_READY = '"address": "'


class Release:
    """One release: its environment, and a server that runs in it."""

    def __init__(self, version: str, directory: Path) -> None:
        self.version = version
        venv.create(directory, with_pip=True)
        self._python = directory / "bin" / "python"
        self._run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"grpcio=={version}", "uvloop")

    def start(self, stack: ExitStack) -> None:
        """Start the server; the stack ends it."""
        server = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - this project's own program
                [self._python, "-m", "benchmarks.echo"], cwd=ROOT, env=self._environment(), stderr=subprocess.PIPE
            )
        )
        stack.callback(server.terminate)
        assert server.stderr is not None
        for line in server.stderr:
            if _READY in line.decode():
                self._address = json.loads(line)["address"]
                return
        raise SystemExit(f"grpcio {self.version}: the server did not start")

    def measure(self) -> Mapping[str, float]:
        """Return the seconds that a message takes, by kind."""
        found: dict[str, float] = json.loads(self._run("-m", "benchmarks.grpc_exchange", self._address))
        return found

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - as above
            [self._python, *arguments], cwd=ROOT, env=self._environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"grpcio {self.version}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "service")))}


def main(arguments: Sequence[str] | None = None) -> None:
    """Install, measure in turns, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.grpc_versions", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("versions", nargs="+", metavar="VERSION")
    parser.add_argument("--turns", type=int, default=9)
    given = parser.parse_args(arguments)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        releases = []
        for version in given.versions:
            print(f"installing grpcio {version} …", file=sys.stderr)
            releases.append(Release(version, directory / version))
        for release in releases:
            release.start(stack)
        turns = []
        for turn in range(given.turns):
            print(f"turn {turn + 1} of {given.turns}", file=sys.stderr)
            order = releases if turn % 2 else releases[::-1]
            turns.append({release.version: release.measure() for release in order})
    _print(given.versions, turns)


def _print(versions: Sequence[str], turns: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    print("| | grpcio | messages/s | x the first (least-most) |\n| --- | --- | --- | --- |")
    for kind in turns[0][versions[0]]:
        for version in versions:
            rate = median(1 / turn[version][kind] for turn in turns)
            ratios = [turn[versions[0]][kind] / turn[version][kind] for turn in turns]
            spread = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            print(f"| {kind} | {version} | {rate:.0f} | {spread} |")


if __name__ == "__main__":
    main()
