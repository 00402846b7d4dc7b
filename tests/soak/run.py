"""One run: two servers on one database, writers and watchers on both, faults all the while; and what came of it."""

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agent_sessions import SessionClient

from tests.faults.metrics import value_of
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory, ServerProcess, clean_environment
from tests.soak.database import Logged, SoakDatabase
from tests.soak.oracle import Verdict, judge, wrong_in_log
from tests.soak.plan import Plan
from tests.soak.watchers import SoakWatcher, watchers

SERVERS = 2
BOOKMARKS = "--watch-bookmark-interval=1"
REPLAYS = 'session_service_watch_replays_total{reason="slow"}'
PROGRESS_EVERY = 5.0
"""Seconds."""

CATCHING_UP = 60.0
"""Seconds that a watcher may take to the log's end, once nobody writes any more."""

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a run came to."""

    log: Sequence[Logged]
    verdicts: Mapping[str, Verdict]
    watchers: Sequence[SoakWatcher]
    problems: Sequence[str]
    """With the log, or with a watcher that never came to its end."""
    kills: int
    terminations: int
    rolled_back: int
    fell_behind: int
    """Times that a watch was slower than its queue, and read the log."""
    failed: Mapping[str, int]
    """Calls of the writers, by the errors that they got to see."""
    seconds: float

    @property
    def transactions(self) -> int:
        """How many logged something, rolled back or not."""
        return len({one.xid for one in self.log}) + self.rolled_back

    @property
    def lost(self) -> int:
        return sum(verdict.lost for verdict in self.verdicts.values())

    @property
    def is_good(self) -> bool:
        return not self.problems and all(verdict.is_good for verdict in self.verdicts.values())


class Servers:
    """Two servers, which keep their addresses when they are killed and started again."""

    def __init__(self, factory: ServerFactory, database_url: str, directory: Path) -> None:
        self.kills = 0
        self.fell_behind = 0.0
        self._factory = factory
        self._database_url = database_url
        self._listen = [f"--listen=unix:{directory / f'server-{n}'}" for n in range(SERVERS)]
        self._processes: list[ServerProcess]

    async def start(self) -> Sequence[str]:
        """Start them; return their addresses."""
        self._processes = list(await asyncio.gather(*map(self._start, self._listen)))
        return [process.address for process in self._processes]

    async def kill(self) -> None:
        """SIGKILL to one of them, in turns, and start it again."""
        victim = self.kills % SERVERS
        await self._count(self._processes[victim])
        self._processes[victim].kill()
        self.kills += 1
        self._processes[victim] = await self._start(self._listen[victim])

    async def stop(self) -> None:
        for process in self._processes:
            await self._count(process)
            await asyncio.to_thread(process.stop)

    async def _start(self, listen: str) -> ServerProcess:
        return await asyncio.to_thread(self._factory, listen, BOOKMARKS, database_url=self._database_url)

    async def _count(self, process: ServerProcess) -> None:
        self.fell_behind += await asyncio.to_thread(value_of, process, REPLAYS)


class Writers:
    """The processes with the writers."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self.acknowledged: Mapping[tuple[str, str], Sequence[int]] = {}
        self.failed: Counter[str] = Counter()
        self._processes = processes

    async def stop(self) -> None:
        """Let what is in flight finish, and take the reports."""
        acknowledged: dict[tuple[str, str], list[int]] = defaultdict(list)
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for said, _ in await asyncio.gather(*(process.communicate() for process in self._processes)):
            report = json.loads(said)
            self.failed.update(report["failed"])
            for agent_id, session_name, revisions in report["saved"]:
                acknowledged[agent_id, session_name] += revisions
        self.acknowledged = acknowledged

    def check(self) -> None:
        """Raises if one of them has ended too early."""
        if any(process.returncode is not None for process in self._processes):
            raise RuntimeError("a process of writers died, see above")


@asynccontextmanager
async def writing(plan: Plan, addresses: Sequence[str]) -> AsyncIterator[Writers]:
    """Let the writers write, until stopped."""
    each = plan.writers // plan.processes
    processes = []
    try:
        for number in range(plan.processes):
            task = {"addresses": addresses, "first": number * each, "writers": each, "seed": plan.seed}
            command = [sys.executable, "-m", "tests.soak.writers", json.dumps(task)]
            pipe = asyncio.subprocess.PIPE
            processes.append(
                await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=clean_environment())
            )
        yield Writers(processes)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def soak(plan: Plan, factory: ServerFactory, database_url: str, directory: Path, say: Say) -> Outcome:
    """Carry out a run on a fresh database; `directory`: for sockets."""
    began = time.monotonic()
    database = SoakDatabase(database_url)
    await database.prepare(naive=plan.naive)
    servers = Servers(factory, database_url, directory)
    addresses = await servers.start()
    async with AsyncExitStack() as stack:
        all_of_them = [await stack.enter_async_context(one) for one in watchers(addresses, plan.seed)]
        writers = await stack.enter_async_context(writing(plan, addresses))
        terminations = await _disturb(plan, database, servers, writers, all_of_them, say)
        await writers.stop()
        problems = await _come_to_the_end(database, addresses, all_of_them, say)
    await servers.stop()
    log = await database.log()
    return Outcome(
        log=log,
        verdicts={one.name: judge(log, one.types, one.agent_id, one.received) for one in all_of_them},
        watchers=all_of_them,
        problems=[*problems, *wrong_in_log(log, writers.acknowledged)],
        kills=servers.kills,
        terminations=terminations,
        rolled_back=await database.rolled_back(),
        fell_behind=round(servers.fell_behind),
        failed=writers.failed,
        seconds=time.monotonic() - began,
    )


async def _disturb(
    plan: Plan,
    database: SoakDatabase,
    servers: Servers,
    writers: Writers,
    all_of_them: Sequence[SoakWatcher],
    say: Say,
) -> int:
    """Kill and cut until there are enough events; return how many connections were cut."""
    chance = random.Random(plan.seed)  # noqa: S311 - no secret
    terminations, began, told = 0, time.monotonic(), 0.0
    while (events := await database.events()) < plan.events or servers.kills < plan.kills:
        writers.check()
        if servers.kills < plan.kills and events * (plan.kills + 1) >= plan.events * (servers.kills + 1):
            await servers.kill()
        await asyncio.sleep(chance.uniform(0, plan.longest_peace))
        terminations += await database.terminate_some(chance)
        if (now := time.monotonic() - began) - told >= PROGRESS_EVERY:
            told = now
            behind = ", ".join(str(len(one.received)) for one in all_of_them)
            say(f"{now:4.0f} s: {events:,} events, {servers.kills} kills, {terminations} cuts; received {behind}")
    return terminations


async def _come_to_the_end(
    database: SoakDatabase, addresses: Sequence[str], all_of_them: Sequence[SoakWatcher], say: Say
) -> list[str]:
    """Log one more event, after all others, and let every watcher get past it."""
    await database.keep_all()
    async with SessionClient(addresses[0], timeout=CATCHING_UP) as client:
        await client.save("the last", "the last", conversation())
    last = (await database.log())[-1]
    say(f"the log has come to its end, with number {last.seq}")
    problems = []
    for one in all_of_them:
        one.hurries = True
    for one in all_of_them:
        try:
            await one.until(partial(_is_past, database, one, last), CATCHING_UP)
        except TimeoutError as late:
            problems.append(f"{one.name}: did not come to the log's end: {late}")
    return problems


def _is_past(database: SoakDatabase, watcher: SoakWatcher, last: Logged) -> bool:
    return database.place(watcher.token).position.seq >= last.seq
