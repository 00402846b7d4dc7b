"""The benchmarks run, small and without the peers; how fast anything was is not looked at."""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from agent_sessions.v1 import session_pb2
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_service_pb2_grpc import SessionServiceStub

from benchmarks import load, measurement, report, stores
from benchmarks.cases import ReadSizes, parse
from benchmarks.corpus import Conversation, encode
from benchmarks.database import Cluster
from benchmarks.plan import Plan, carry_out
from benchmarks.processes import relay
from benchmarks.processor_time import CLIENT, POSTGRES, SERVER, Clocks, taken
from benchmarks.results import Result, Run
from benchmarks.stores.base import CONNECTIONS, Access
from tests.fixtures.postgres import PostgresCluster

STORES = ("floor", "overwrite", "ours", "ours-snapshot")
SPENT = 0.3
BUSY = f"""
import sys, time
for _ in range(2):
    end = time.process_time() + {SPENT}
    while time.process_time() < end:
        pass
    print(flush=True)
    sys.stdin.readline()
"""
"""A program that takes so many seconds of a processor, says so, and goes on when told to."""
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
        assert result.empty_bytes is not None
        assert 0 < result.empty_bytes < result.stored_bytes, result.store
        parts = {CLIENT, POSTGRES} | ({SERVER} if result.store in stores.OURS else set())
        assert set(result.processor_seconds) == parts, result.store
    assert Run.read(tmp_path / "results.json").results == run.results
    for store in STORES:
        assert store in report.text(run)
        assert store in report.document(run)


async def test_the_relay_serves_more_streams_than_a_store_has_connections(empty_database_url: str) -> None:
    await stores.make("relay").prepare(empty_database_url)
    async with relay(empty_database_url) as (address, _), grpc.aio.insecure_channel(address) as channel:
        stub: Any = SessionServiceStub(channel)
        streams = [stub.SaveSessions() for _ in range(CONNECTIONS + 2)]
        async with asyncio.timeout(60):
            for number, stream in enumerate(streams):
                message = session_pb2.Message(payload=session_pb2.Payload(data=b"hello"))
                delta = session_pb2.StateDelta(appended_messages=[message])
                request = pb.SaveSessionRequest(session_name=f"s{number}", request_id="1", delta=delta)
                await stream.write(pb.SaveSessionsRequest(saves=[pb.FramedSave(request=request)]))
                assert [result.request_id for result in (await stream.read()).results] == ["1"]
        for stream in streams:
            await stream.done_writing()


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


async def test_reads_are_measured_beside_their_parts(postgres: PostgresCluster, tmp_path: Path) -> None:
    sizes = ReadSizes(messages=30, long_messages=60, message_limit=5, repetitions=2, long_repetitions=2)
    plan = Plan(stores=["ours"], cases=parse("reads"), rounds=2, reads=sizes)

    run = await carry_out(plan, Cluster(postgres.dsn), tmp_path / "results.json", print)

    assert [reading.round for reading in run.reads] == [1, 2]
    for reading in run.reads:
        assert set(reading.seconds) == {"get", "restore", "select", "echo", "again", "commit", "long", "limited"}
        assert set(reading.packed_seconds) == {"get", "restore", "select", "echo", "again", "commit"}
        assert min(*reading.seconds.values(), *reading.packed_seconds.values()) > 0
        for name, messages in (("long", sizes.long_messages), ("limited", sizes.message_limit)):
            scans = reading.plans[name]
            # In a table as small as this one PostgreSQL may read more than it needs.
            assert (
                sum(rows for table, (rows, _) in scans.items() if table.startswith("transcript_segments")) >= messages
            )
            assert scans["all"][1] >= sum(buffers for table, (_, buffers) in scans.items() if table != "all") > 0
    assert Run.read(tmp_path / "results.json").reads == run.reads
    for written in (report.text(run), report.document(run)):
        assert "GetRevision by SELECT + echo" in written
        assert "GetRevision packed by SELECT + echo" in written
        assert "message_limit=5: rows" in written


async def test_what_is_stored_is_measured_before_and_after_packing(
    postgres: PostgresCluster, corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "WAVES", 2)
    plan = Plan(stores=["ours"], cases=parse(f"{corpus_file}:2:packed"), rounds=1)

    run = await carry_out(plan, Cluster(postgres.dsn), tmp_path / "results.json", print)

    assert run.results == []
    (packing,) = run.packings
    assert packing.saves == packing.revisions_compared == 2 * sum(LENGTHS)
    # Besides, a few small sessions warm the server up: of these, too.
    assert packing.packed_messages >= 2 * sum(length for length in LENGTHS if length > 1)
    assert min(packing.saving_wal_bytes, packing.packing_wal_bytes, packing.payload_bytes) > 0
    for sizes in (packing.unpacked, packing.packed):
        assert len(sizes["transcript_segments"]) == 3
        assert sum(map(sum, sizes.values())) > packing.payload_bytes
    assert Run.read(tmp_path / "results.json").packings == run.packings
    for written in (report.text(run), report.document(run)):
        assert "stored × payload after the last wave, packed" in written
        assert "transcript_segments" in written


async def test_a_run_that_was_broken_off_is_added_to(
    postgres: PostgresCluster, corpus_file: Path, tmp_path: Path
) -> None:
    results, cluster = tmp_path / "results.json", Cluster(postgres.dsn)
    plan = Plan(stores=["floor", "overwrite"], cases=parse(f"{corpus_file}:1"), rounds=1)

    def break_off(line: str) -> None:
        if line.startswith("round 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await carry_out(plan, cluster, results, break_off)
    await carry_out(plan, cluster, results, print, append=True)
    await carry_out(replace(plan, cases=parse(f"{corpus_file}:2")), cluster, results, print, append=True)

    found = Run.read(results)
    name = corpus_file.name
    assert [(one.case, one.round, one.store) for one in found.results] == [
        (f"{name}:1", 1, "floor"),
        (f"{name}:1", 2, "floor"),
        (f"{name}:1", 2, "overwrite"),
        (f"{name}:2", 1, "floor"),
        (f"{name}:2", 1, "overwrite"),
    ]
    assert f"{name}:1" in report.text(found)
    assert f"{name}:2" in report.text(found)
    with pytest.raises(ValueError, match="limit"):
        await carry_out(replace(plan, limit=1), cluster, results, print, append=True)
    assert Run.read(results).results == found.results


def made_up(round_: int, store: str, seconds: float) -> Result:
    return Result(
        round=round_, store=store, case="coding:1", saves=100, seconds=seconds, save_p50=seconds, save_p99=seconds,
        payload_bytes=100, wal_bytes=100, stored_bytes=int(100 * seconds), messages_compared=100,
    )  # fmt: skip


def test_processor_time_is_by_part_and_save() -> None:
    run = Run(machine={}, postgres={}, options={"limit": 0})
    run.stores = {"floor": {}, "ours": {}}
    run.results = [
        replace(made_up(1, "floor", 1), processor_seconds={CLIENT: 0.01, POSTGRES: 0.02}),
        replace(made_up(1, "ours", 1), processor_seconds={CLIENT: 0.03, SERVER: 0.04, POSTGRES: 0.05}),
    ]

    head, floor, ours = report.table(run, "coding:1")

    columns = [head.index(f"{part} CPU µs") for part in (CLIENT, SERVER, POSTGRES)]
    assert [floor[column] for column in columns] == ["100", "–", "200"]
    assert [ours[column] for column in columns] == ["300", "400", "500"]


def test_clocks_count_who_works_and_no_time_before() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stdin=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        assert busy.stdin is not None
        busy.stdout.readline()
        pids = {CLIENT: [busy.pid], SERVER: [os.getpid()], "nobody": [2**22 + 1]}
        before = taken(busy.pid)
        clocks = Clocks(pids)
        busy.stdin.write(b"\n")
        busy.stdin.flush()
        busy.stdout.readline()
        found = clocks.since(pids)
        busy.stdin.close()
    assert before is not None
    assert set(found) == {CLIENT, SERVER}
    # Given in hundredths. What it took before is not counted again.
    assert before > 0.9 * SPENT
    assert 0.9 * SPENT < found[CLIENT] < 1.9 * SPENT
    assert found[SERVER] < 0.9 * SPENT


def test_ratios_are_to_the_same_round() -> None:
    run = Run(machine={}, postgres={}, options={"limit": 0})
    run.stores = {store: {} for store in ("floor", "overwrite", "langgraph", "google-adk", "ours", "ours-snapshot")}
    # The machine is half as fast in the second round; google-adk is missing in the third.
    for round_, slower in ((1, 1), (2, 2), (3, 1)):
        run.results += [
            made_up(round_, "floor", 1 * slower),
            made_up(round_, "overwrite", 2 * slower),
            made_up(round_, "langgraph", 8 * slower),
            made_up(round_, "ours", 4 * slower),
            made_up(round_, "ours-snapshot", 5 * slower),
        ]
    run.results += [made_up(1, "google-adk", 16), made_up(2, "google-adk", 8)]

    head, *rows = report.table(run, "coding:1")
    ours = dict(zip(head, next(row for row in rows if row[0] == "ours"), strict=True))
    snapshot = dict(zip(head, next(row for row in rows if row[0] == "ours-snapshot"), strict=True))

    assert ours["× floor"] == "0.25 (0.25–0.25)"
    assert ours["p50 × floor"] == "4.00 (4.00–4.00)"
    assert ours["× fastest peer"] == "1.50 (1.00–2.00)"
    assert snapshot["stored × ours"] == "1.250 (1.250–1.250)"
    assert all(row[head.index("× fastest peer")] == "–" for row in rows if not row[0].startswith("ours"))
