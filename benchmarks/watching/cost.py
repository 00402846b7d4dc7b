"""`watch:cost`: what the log of events, its index, the feed and notifications take from saves.

Two servers on two databases are up at the same time, and are saved to in turns. One is the service as it is. The other
neither follows the log nor notifies, and in its database saves write no event and the log has no index.
"""

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from benchmarks.cases import Case
from benchmarks.database import Cluster
from benchmarks.processes import Client, clients
from benchmarks.servers import SERVICE, Server, server
from benchmarks.watching import launcher
from benchmarks.watching.rig import Figures, note
from benchmarks.watching.saves import STORE, save
from benchmarks.watching.sizes import Sizes

WITH, WITHOUT = "with events", "without"
INSERTS = {
    "save_one_v2": re.compile(r"INSERT INTO session_events \([^)]*\) VALUES \(.*?\);", re.DOTALL),
    "save_sessions_v2": re.compile(r",\s*event AS \(\s*INSERT INTO session_events.*?FROM moved\s*\)", re.DOTALL),
}
"""Where a save function writes its event."""
DEFINITION = "SELECT pg_get_functiondef($1::regproc)"
DROP_INDEX = "DROP INDEX session_events_feed"
LOGGED = "SELECT (SELECT count(*) FROM session_events WHERE type = 1), (SELECT count(*) FROM revisions)"


async def measure(cluster: Cluster, template: str, sizes: Sizes, works: Mapping[Case, dict[str, Any]]) -> Figures:
    """Return for each case, with events and without, what `save` measures, by turn."""
    databases = {WITH: await cluster.create("run", template), WITHOUT: await cluster.create("run_bare", template)}
    urls = {name: cluster.url(database) for name, database in databases.items()}
    await remove_events(urls[WITHOUT])
    figures = Figures()
    async with AsyncExitStack() as stack:
        savers: dict[str, tuple[Client, Server]] = {}
        for name, dsn in urls.items():
            run = (SERVICE,) if name == WITH else (launcher.MODULE, launcher.SILENT)
            serving = await stack.enter_async_context(server(dsn, run=run))
            (saver,) = await stack.enter_async_context(clients(STORE))
            await saver.ask("open", access={"dsn": dsn, "target": serving.address})
            savers[name] = saver, serving
        for number in range(sizes.cost_slices):
            for case, work in works.items():
                for name in (WITH, WITHOUT)[:: 1 if number % 2 else -1]:
                    note(figures, f"{case} {name}", **await save(*savers[name], case, work, f".{number}.{case}"))
        for saver, _ in savers.values():
            await saver.ask("close")
    for name, dsn in urls.items():
        events, saved = await _logged(dsn)
        assert events == (saved if name == WITH else 0), f"{events} events of {saved} saves {name}"
    for database in databases.values():
        await cluster.drop(database)
    return figures


async def remove_events(dsn: str) -> None:
    """Let saves write no events, and take the log's index away; raises ValueError where they look otherwise."""
    connection = await asyncpg.connect(dsn)
    try:
        for name, insert in INSERTS.items():
            definition = await connection.fetchval(DEFINITION, name)
            changed, count = insert.subn("", definition)
            if count != 1 or "session_events" in changed:
                raise ValueError(f"{name} does not write one event where it is looked for")
            await connection.execute(changed)
        await connection.execute(DROP_INDEX)
    finally:
        await connection.close()


async def _logged(dsn: str) -> tuple[int, int]:
    """Return how many saves the log has, and how many there were."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetchrow(LOGGED)
        assert found is not None
        return tuple(found)
    finally:
        await connection.close()
