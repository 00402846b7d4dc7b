"""The soak of `python -m tests.soak`, short; and that it notices what a reader without the watermark loses."""

import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.fixtures.figures import Tell
from tests.fixtures.postgres import PostgresCluster
from tests.fixtures.servers import ServerFactory
from tests.soak import report
from tests.soak.__main__ import NAIVE_SERVER
from tests.soak.plan import Plan
from tests.soak.run import soak

EVENTS = 3000
ROUNDS = 5


@pytest.fixture
def naive_server() -> Iterator[ServerFactory]:
    with closing(ServerFactory(measured=False, module=NAIVE_SERVER)) as factory:
        yield factory


async def test_every_event_reaches_every_watcher_in_order(
    server: ServerFactory, database_url: str, data_dir: Path, tell: Tell
) -> None:
    outcome = await soak(Plan(events=EVENTS, kills=2), server, database_url, data_dir.parent, lambda _: None)
    assert outcome.is_good, "\n".join(report.lines(outcome))
    assert len(outcome.log) >= EVENTS
    assert outcome.rolled_back > outcome.transactions / 20
    assert outcome.terminations
    assert outcome.fell_behind, "the slow watcher was not slow enough"
    assert all(watcher.streams > 1 for watcher in outcome.watchers), "a watcher never had to go on with its token"
    tell("\n".join(report.lines(outcome)))


async def test_without_the_watermark_events_are_lost(
    naive_server: ServerFactory, postgres: PostgresCluster, template_database: str, data_dir: Path
) -> None:
    # A matter of chance, so there may be several rounds.
    for seed in range(ROUNDS):
        name = f"test_{uuid.uuid4().hex}"
        url = postgres.create(name, template_database)
        try:
            plan = Plan(events=EVENTS // 2, kills=0, naive=True, seed=seed)
            outcome = await soak(plan, naive_server, url, data_dir.parent, lambda _: None)
        finally:
            postgres.drop(name)
        if outcome.lost:
            return
    raise AssertionError("\n".join(report.lines(outcome)))
