"""`python -m tests.soak`: does every watcher get every event, whatever dies meanwhile?

Exits with 1 if anything was lost, out of order, or delivered that did not happen.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from session_service.postgres.embedded import EmbeddedPostgres
from session_service.postgres.migrate import migrate

from tests.fixtures.postgres import ROLE
from tests.fixtures.servers import ServerFactory
from tests.soak import report
from tests.soak.plan import Plan
from tests.soak.run import Outcome, soak

NAIVE_SERVER = "tests.soak.naive_server"


def main() -> int:
    """Return the exit code."""
    plan = _plan()
    try:
        outcome = asyncio.run(_interruptible(_run(plan)))
    except asyncio.CancelledError:
        print("soak: stopped", file=sys.stderr)
        return 130
    print("\n" + "\n".join(report.lines(outcome)))
    return 0 if outcome.is_good else 1


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    default = Plan()
    parser.add_argument("--events", type=int, default=default.events, help="in the log at the end, at least")
    parser.add_argument("--kills", type=int, default=default.kills, help="SIGKILLs to servers")
    parser.add_argument("--seed", type=int, default=default.seed, help="of all that is chosen at random")
    parser.add_argument("--naive", action="store_true", help="read the log by event numbers alone: loses events")
    given = parser.parse_args()
    return Plan(events=given.events, kills=given.kills, seed=given.seed, naive=given.naive)


async def _run(plan: Plan) -> Outcome:
    factory = ServerFactory(measured=False, module=NAIVE_SERVER if plan.naive else "session_service")
    with tempfile.TemporaryDirectory(prefix="session-soak-") as directory, closing(factory):
        async with _postgres(Path(directory) / "postgres") as url:
            return await soak(plan, factory, url, Path(directory), lambda line: print(line, flush=True))


@asynccontextmanager
async def _postgres(directory: Path) -> AsyncIterator[str]:
    """Give the URL of a database of this run."""
    postgres = EmbeddedPostgres(directory, {"max_connections": "200"})
    url = await postgres.start()
    try:
        await migrate(url, role=ROLE)
        yield url
    finally:
        await postgres.stop()


async def _interruptible(run: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Let SIGTERM and ctrl-C end a run the same way: everything that it started is stopped first."""
    task = asyncio.ensure_future(run)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


if __name__ == "__main__":
    sys.exit(main())
