"""The processes of a measurement: those that answer commands, and those that listen."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 1800.0
"""Seconds for one command: a store of full states may take minutes."""
READY_TIMEOUT = 60.0
STOP_TIMEOUT = 45.0
_LINE_LIMIT = 64 * 1024 * 1024


class ProcessFailed(Exception):
    """A client or the server could not do what it was asked. The message holds its last words."""


class Process:
    """A Python module run as a child; what it says on stderr is kept for errors."""

    def __init__(self, module: str, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        self.module = module
        self.process = process
        self.said: deque[str] = deque(maxlen=30)
        self.changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read(process.stderr))

    @classmethod
    async def start(cls, module: str, *arguments: str) -> "Process":
        """Start `python -m module` with this program's Python and import path."""
        return cls(
            module,
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=ROOT,
                env=environment(),
                limit=_LINE_LIMIT,
                start_new_session=True,  # a ctrl-C is for this program, which stops its children in order
            ),
        )

    async def _read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            async with self.changed:
                self.said.append(line.decode(errors="replace").rstrip())
                self.changed.notify_all()
        async with self.changed:
            self.changed.notify_all()

    @property
    def ended(self) -> bool:
        """Whether nothing more will be said."""
        return self._reader.done()

    def last_words(self) -> str:
        """Return what was said last on stderr."""
        return "\n".join(self.said)

    async def stop(self) -> None:
        """Ask it to end, wait until it has; kill it if it does not."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.returncode is None:
                self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._reader


class Client:
    """A worker process; see benchmarks.worker for the commands."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.pid = process.process.pid

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return the answer; raises ProcessFailed."""
        stdin, stdout = self._process.process.stdin, self._process.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write((json.dumps({"command": command} | arguments) + "\n").encode())
        await stdin.drain()
        line = await asyncio.wait_for(stdout.readline(), TIMEOUT)
        answer: dict[str, Any] = json.loads(line) if line else {"failed": "the process ended"}
        if "failed" in answer:
            raise ProcessFailed(f"{command}: {answer['failed']}\n{self._process.last_words()}")
        return answer


@asynccontextmanager
async def workers(module: str, count: int = 1) -> AsyncIterator[Sequence[Client]]:
    """Run processes of a module that answers commands."""
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for _ in range(count):
            process = await Process.start(module)
            stack.push_async_callback(process.stop)
            started.append(Client(process))
        yield started


@asynccontextmanager
async def clients(store: str, count: int = 1) -> AsyncIterator[Sequence[Client]]:
    """Run client processes of a store."""
    async with workers("benchmarks.worker", count) as started:
        await asyncio.gather(*(client.ask("make", name=store) for client in started))
        yield started


async def pack(dsn: str) -> dict[str, Any]:
    """Pack everything in a database, and return what the command tells at its end."""
    process = await Process.start("session_service", "pack", "--now", f"--database-url={dsn}", "--log-format=json")
    try:
        async with asyncio.timeout(TIMEOUT):
            code = await process.process.wait()
    finally:
        await process.stop()
    if code:
        raise ProcessFailed(f"packing failed:\n{process.last_words()}")
    told: dict[str, Any] = json.loads(process.said[-1])
    return told


@asynccontextmanager
async def relay(dsn: str) -> AsyncIterator[tuple[str, int]]:
    """Run benchmarks.relay on a database, and give its address and pid."""
    async with listening("benchmarks.relay", dsn) as process:
        yield await address_of(process), process.process.pid


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    """Run benchmarks.echo, and give its address."""
    async with listening("benchmarks.echo") as process:
        yield await address_of(process)


@asynccontextmanager
async def listening(module: str, *arguments: str) -> AsyncIterator[Process]:
    """Run a module that logs where it listens, as the service does."""
    process = await Process.start(module, *arguments)
    try:
        yield process
    finally:
        await process.stop()


async def address_of(process: Process, event: str = "listening") -> str:
    """Wait until a process says where it listens; raises ProcessFailed."""
    async with asyncio.timeout(READY_TIMEOUT), process.changed:
        while True:
            for line in process.said:
                if f'"event": "{event}"' in line:
                    return str(json.loads(line)["address"])
            if process.ended or process.process.returncode is not None:
                raise ProcessFailed(f"{process.module} did not start:\n{process.last_words()}")
            await process.changed.wait()


def environment() -> dict[str, str]:
    """Return this process's environment without settings of the service, with its import path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_SERVICE_")}
    return kept | {"PYTHONPATH": os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])}
