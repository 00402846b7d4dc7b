"""The benchmarks run, small and without the peers; how fast anything was is not looked at."""

import json
from pathlib import Path

import pytest

from benchmarks import load, report, stores
from benchmarks.cases import parse
from benchmarks.corpus import Conversation, encode
from benchmarks.database import Cluster
from benchmarks.plan import Plan, carry_out
from benchmarks.results import Run
from benchmarks.stores.base import Access
from tests.fixtures.postgres import PostgresCluster

STORES = ("floor", "overwrite", "ours-snapshot")
LENGTHS = (1, 3, 5)


def conversation(number: int, length: int) -> Conversation:
    messages = [encode({"role": "user", "content": f"message {index} of {number} ☂"}) for index in range(length)]
    return Conversation("agent", f"session-{number}", messages)


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    lines = []
    for number, length in enumerate(LENGTHS):
        one = conversation(number, length)
        values = [message.value for message in one.messages]
        lines.append(json.dumps({"agent_id": one.agent_id, "session_name": one.session_name, "messages": values}))
    file = tmp_path / "corpus.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


async def test_run_measures_every_store_and_compares_what_comes_back(
    postgres: PostgresCluster, corpus_file: Path, tmp_path: Path
) -> None:
    plan = Plan(stores=STORES, cases=parse(f"{corpus_file}:2p"), rounds=1)

    run = await carry_out(plan, Cluster(postgres.dsn), tmp_path / "results.json", print)

    assert not run.skipped
    assert [result.store for result in run.results] == list(STORES)
    for result in run.results:
        assert result.saves == result.messages_compared == sum(LENGTHS), result.store
        assert 0 < result.payload_bytes < result.wal_bytes, result.store
        assert result.stored_bytes is not None
        assert result.stored_bytes > result.payload_bytes, result.store
    assert Run.read(tmp_path / "results.json").results == run.results
    for store in STORES:
        assert store in report.text(run)
        assert store in report.document(run)


@pytest.mark.parametrize("damage", ["lost", "changed"])
async def test_a_store_that_gives_back_something_else_is_told_by_session_and_message(
    empty_database_url: str, damage: str
) -> None:
    store, saved = stores.make("floor"), conversation(7, 3)
    await store.prepare(empty_database_url)
    await store.open(Access(empty_database_url))
    try:
        await load.save(store, [saved], in_flight=1)
        assert (await load.restore(store, [saved])).messages == 3

        other = conversation(7, 4) if damage == "lost" else conversation(8, 3)
        expected = Conversation(saved.agent_id, saved.session_name, other.messages)
        with pytest.raises(load.Different, match="agent/session-7: " + ("4 .* 3" if damage == "lost" else "message 0")):
            await load.restore(store, [expected])
    finally:
        await store.close()
