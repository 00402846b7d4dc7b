"""The benchmarks of watching run, small; how fast anything was is not looked at."""

from pathlib import Path

import asyncpg
import pytest
from session_service.events.feed import Feed
from session_service.postgres.event_hints import Listener, Notifier

from benchmarks import report, stores
from benchmarks.cases import DEFAULT, parse
from benchmarks.database import Cluster
from benchmarks.plan import Plan, carry_out
from benchmarks.results import Run, Watching
from benchmarks.watching import cost, latency, launcher, saves, streams
from benchmarks.watching.sizes import CASES, Sizes
from tests.fixtures.postgres import PostgresCluster

SIZES = Sizes(
    slices=1, events=10, streams=12, streams_per_channel=4, events_per_second=100, stream_slices=2, stream_events=24,
    save_slices=2, cost_slices=2,
)  # fmt: skip


@pytest.fixture
def cluster(postgres: PostgresCluster) -> Cluster:
    return Cluster(postgres.dsn)


async def measured(cluster: Cluster, case: str, folder: Path) -> Watching:
    """Measure a case; it is also in the results' file and in both reports."""
    plan = Plan(stores=["ours"], cases=parse(case), rounds=1, synthetic_messages=100, watching=SIZES)
    run = await carry_out(plan, cluster, folder / "results.json", print)

    assert run.results == []
    (watching,) = run.watchings
    assert (watching.case, watching.round) == (case, 1)
    assert Run.read(folder / "results.json").watchings == run.watchings
    for written in (report.text(run), report.document(run)):
        assert f"{case}: " in written
        for variant in watching.figures:
            assert all(values for values in watching.figures[variant].values())
    return watching


async def test_how_soon_an_event_is_on_another_server(cluster: Cluster, tmp_path: Path) -> None:
    figures = (await measured(cluster, "watch:latency", tmp_path)).figures

    assert set(figures) == set(latency.VARIANTS)
    for measures in figures.values():
        assert set(measures) == {
            f"{part} {rank}" for part in ("sent", "answered", "notify", "echo") for rank in ("p50", "p99")
        }
        assert measures["sent p50"] > measures["answered p50"]
        assert min(measures["sent p50"] + measures["notify p50"] + measures["echo p50"]) > 0


async def test_one_stream_beside_many(cluster: Cluster, tmp_path: Path) -> None:
    figures = (await measured(cluster, "watch:streams", tmp_path)).figures

    for name in (streams.ONE, streams.MANY):
        assert {measure: len(values) for measure, values in figures[name].items()} == {"p50": 2, "p99": 2, "rate": 2}
        assert min(map(min, figures[name].values())) > 0
    assert set(figures[streams.IDLE]) == {"bytes", "seconds"}


@pytest.mark.timeout(300)  # a score of processes
async def test_saves_are_measured_while_others_watch(cluster: Cluster, tmp_path: Path) -> None:
    figures = (await measured(cluster, "watch:saves", tmp_path)).figures

    assert set(figures) == set(saves.variants(SIZES))
    assert all(
        len(measures["rate"]) == len(measures["busy"]) == 2 and min(measures["rate"]) > 0
        for measures in figures.values()
    )


async def test_saves_are_measured_with_events_and_without(cluster: Cluster, tmp_path: Path) -> None:
    figures = (await measured(cluster, "watch:cost", tmp_path)).figures

    # Without recorded conversations only what needs none.
    assert set(figures) == {f"synthetic:64 {name}" for name in (cost.WITH, cost.WITHOUT)}
    assert all(
        len(measures["rate"]) == len(measures["busy"]) == 2 and min(measures["rate"]) > 0
        for measures in figures.values()
    )


async def test_events_are_taken_out_of_a_database_once(empty_database_url: str) -> None:
    await stores.make("ours").prepare(empty_database_url)

    await cost.remove_events(empty_database_url)

    with pytest.raises(ValueError, match="save_one_v2"):
        await cost.remove_events(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    try:
        assert await connection.fetchval("SELECT to_regclass('session_events_feed')") is None
        assert await connection.fetchval("SELECT to_regclass('session_events')") == "session_events"
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("part", "replaced"),
    [("deaf", {"Listener.run"}), ("silent", {"Listener.run", "Notifier.run", "Notifier.tell", "Feed.run"})],
)
def test_the_launcher_takes_out_what_it_says(part: str, replaced: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    methods = [(Listener, "run"), (Notifier, "run"), (Notifier, "tell"), (Feed, "run")]
    before = {f"{kind.__name__}.{name}": getattr(kind, name) for kind, name in methods}
    for kind, name in methods:
        monkeypatch.setattr(kind, name, getattr(kind, name))  # put back afterwards

    launcher.take_out(part)

    after = {f"{kind.__name__}.{name}": getattr(kind, name) for kind, name in methods}
    assert {name for name in before if after[name] is not before[name]} == replaced


def test_the_launcher_refuses_other_parts() -> None:
    with pytest.raises(ValueError, match="'mute'"):
        launcher.take_out("mute")


def test_cases_are_written_alone() -> None:
    assert [str(case) for case in parse(",".join(CASES))] == list(CASES)
    assert set(CASES) <= {str(case) for case in parse(DEFAULT)}
    with pytest.raises(ValueError, match="watch:latency"):
        parse("watch:nothing")
