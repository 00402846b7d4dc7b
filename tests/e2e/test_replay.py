"""`sessionctl replay` as a process, through a real server: every payload comes back to the byte."""

import asyncio
import gzip
import json
import os
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.sessionctl_process import Sessionctl
from tests.fixtures.figures import Tell
from tests.fixtures.servers import ServerFactory, ServerProcess
from tests.fixtures.shared_server import Database

TABLE_BYTES = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""
PAYLOAD_BYTES = """
SELECT (SELECT coalesce(sum(octet_length(payload)), 0) FROM transcript_segments)
    + (SELECT coalesce(sum(octet_length(state)), 0) FROM revisions)
    + (SELECT coalesce(sum(octet_length(payload)), 0) FROM state_values)
"""

DAMAGE = """
CREATE FUNCTION damage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.payload := set_byte(NEW.payload, 9, get_byte(NEW.payload, 9) # 1);
    RETURN NEW;
END $$;
CREATE TRIGGER damage BEFORE INSERT ON transcript_segments FOR EACH ROW WHEN (NEW.first_message = 2)
EXECUTE FUNCTION damage();
"""
"""The third message of each session is stored with one bit of it flipped."""

WriteCorpus = Callable[..., Path]


@pytest.fixture
def shared_url(emptied_database: Database) -> str:
    return emptied_database.dsn


@pytest.fixture
def ctl(shared_server: ServerProcess, shared_url: str) -> Sessionctl:
    return Sessionctl(shared_server.address)


@pytest.fixture
def write_corpus(data_dir: Path) -> WriteCorpus:
    """Return what writes lines, as they are or as JSON, into FOLDER/name.jsonl.gz and returns its path."""

    def write(*lines: Any, name: str = "corpus") -> Path:
        data_dir.mkdir(exist_ok=True)
        path = data_dir / f"{name}.jsonl.gz"
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
        path.write_bytes(gzip.compress(text.encode()))
        return path

    return write


def conversation(session_name: str, count: int, agent_id: str = "a") -> dict[str, Any]:
    messages = [
        {"role": "user", "content": f"{session_name} {number}: é\u0000\U0001f600", "n": [number, 1.5, None, True]}
        for number in range(count)
    ]
    return {"agent_id": agent_id, "session_name": session_name, "messages": messages}


def encoded_size(conversation: dict[str, Any]) -> int:
    return sum(
        len(json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode())
        for message in conversation["messages"]
    )


async def fetch_value(database_url: str, query: str) -> int:
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()


async def execute(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def bytes_stored(database_url: str) -> tuple[int, int]:
    """Return the size of the service's tables with their indexes, and of the payload columns alone."""
    return await fetch_value(database_url, TABLE_BYTES), await fetch_value(database_url, PAYLOAD_BYTES)


def recorded(corpus: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for file in sorted(corpus.rglob("*.jsonl.gz"))
        for line in gzip.decompress(file.read_bytes()).splitlines()
    ]


def saves_by_kind(server: ServerProcess) -> Counter[str]:
    """Return how many saves the server has counted of each kind."""
    with urllib.request.urlopen(f"http://{server.ops_address}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    found: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == "session_service_saves_total":
            found[sample.labels["kind"]] += round(sample.value)
    return found


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@pytest.mark.timeout(300)
async def test_all_recorded_conversations(
    unmeasured_server: ServerFactory, database_url: str, session_corpus: Path, tell: Tell
) -> None:
    lines = recorded(session_corpus)
    messages = sum(len(line["messages"]) for line in lines)
    process = unmeasured_server(database_url=database_url)
    ctl = Sessionctl(process.address, measured=False)
    before = os.times()
    done = ctl("replay", session_corpus, "--output", "json", "--timeout", "60", timeout=280)
    after = os.times()
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["mismatches"] == []
    assert (summary["conversations"], summary["messages"], summary["saves"]) == (len(lines), messages, messages)
    assert summary["bytes_in"] == sum(map(encoded_size, lines))
    # By another way than the one under test: all revisions are there, and every session was restored once.
    assert await fetch_value(database_url, "SELECT count(*) FROM revisions") == messages
    assert await fetch_value(database_url, "SELECT count(*) FROM session_events WHERE type = 2") == len(lines)
    saves = await asyncio.to_thread(saves_by_kind, process)
    assert sum(saves.values()) == messages
    assert saves["delta"] >= 0.99 * messages
    tables, payloads = await bytes_stored(database_url)
    client_cpu = after.children_user + after.children_system - before.children_user - before.children_system
    tell(
        f"replay: {summary['seconds']:.1f} s, {len(lines)} conversations, {messages:,} messages,"
        f" {summary['bytes_in']:,} bytes in, {summary['bytes_sent']:,} bytes sent,"
        f" {tables:,} bytes stored in tables and indexes, {payloads:,} of them payload,"
        f" {summary['saves']:,} revisions, {summary['saves_per_second']} saves/s;"
        f" CPU: sessionctl {client_cpu:.1f} s, server {cpu_seconds(process.pid):.1f} s"
    )


async def test_a_small_corpus(ctl: Sessionctl, write_corpus: WriteCorpus, shared_url: str) -> None:
    lines = [conversation(f"s{number}", number) for number in range(1, 6)]
    path = write_corpus(*lines[:3], name="one")
    write_corpus("", *lines[3:], name="two")
    summary = ctl.document("replay", path.parent, "--concurrency", "2", "--quiet")
    assert (summary["conversations"], summary["messages"], summary["saves"]) == (5, 15, 15)
    assert summary["bytes_in"] == sum(map(encoded_size, lines))
    assert summary["bytes_sent"] > summary["bytes_in"]
    assert (summary["mismatch_count"], summary["mismatches"]) == (0, [])
    assert await fetch_value(shared_url, "SELECT count(*) FROM revisions") == 15
    (restored,) = [line["head_revision"] for line in ctl.lines("list", "a", "--name-prefix", "s5")]
    assert restored == "5"


def test_a_replay_never_mixes_with_what_is_there(ctl: Sessionctl, write_corpus: WriteCorpus) -> None:
    path = write_corpus(conversation("s", 2))
    assert ctl("replay", path).returncode == 0
    code, line = ctl.failure("replay", path)
    assert code == 1
    assert "agents/a/sessions/s exists already" in line
    assert "--unique" in line
    for apart in (["--unique"], ["--unique"], ["--agent-prefix", "p-"], ["--session-suffix", "-2"]):
        assert ctl("replay", path, *apart).returncode == 0
    names = {(line["agent_id"], line["session_name"]) for line in ctl.lines("list")}
    assert {("a", "s"), ("p-a", "s"), ("a", "s-2")} < names
    assert len(names) == 5
    ctl.document("delete", "a", "s")
    assert "exists already" in ctl.failure("replay", path)[1]


async def test_a_damaged_row_fails_it(server: ServerFactory, write_corpus: WriteCorpus, database_url: str) -> None:
    await execute(database_url, DAMAGE)
    ctl = Sessionctl(server(database_url=database_url).address)
    path = write_corpus(conversation("short", 2), conversation("long", 4))
    done = ctl("replay", path, "--output", "json")
    assert done.returncode == 5
    summary = json.loads(done.stdout)
    assert summary["conversations"] == 2
    (mismatch,) = summary["mismatches"]
    assert mismatch["session_name"] == "long"
    assert mismatch["problem"].startswith("CORRUPT_DATA: ")
    told = ctl("replay", path, "--unique")
    assert told.returncode == 5
    assert "CORRUPT_DATA" in told.stdout


def test_unusable_input_is_named_and_nothing_is_saved(ctl: Sessionctl, write_corpus: WriteCorpus) -> None:
    good = conversation("s", 2)
    for lines, told in (
        ((good, '{"agent_id": '), "line 2: not JSON"),
        ((good, "[]"), "line 2: an object is expected"),
        ((good, good), "line 2: agents/a/sessions/s is in"),
        ((good, good | {"messages": ["text"]}), "line 2: messages"),
        ((good, good | {"session_name": 7}), "line 2: agent_id and session_name"),
        ((good, '{"x": NaN}'), "line 2: not JSON"),
    ):
        path = write_corpus(*lines)
        code, line = ctl.failure("replay", path)
        assert code == 2
        assert f"{path}, {told}" in line
    path = write_corpus(*(conversation(f"s{number}", 9) for number in range(99)))
    whole = path.read_bytes()
    # Cut off; overwritten in the middle; not gzip from the beginning.
    for damaged in (whole[:-20], whole[:99] + b"\xff" * 99 + whole[198:], b"not gzip at all"):
        path.write_bytes(damaged)
        code, line = ctl.failure("replay", path)
        assert code == 2
        assert str(path) in line
        assert "gzip" in line
    assert ctl.failure("replay", path.parent / "none.jsonl")[0] == 2
    assert ctl.lines("list") == []


def test_progress_and_quiet(ctl: Sessionctl, write_corpus: WriteCorpus) -> None:
    path = write_corpus(conversation("s", 3))
    done = ctl("replay", path, "--unique", "--quiet")
    assert not done.stderr
    assert "mismatches         0" in done.stdout
    ours, theirs = os.openpty()
    with subprocess.Popen(
        ctl.command("replay", path, "--unique"), env=ctl.environment(), stdout=subprocess.DEVNULL, stderr=theirs
    ) as process:
        assert process.wait(30) == 0
    os.close(theirs)
    assert os.read(ours, 4096).endswith(b"\r\x1b[K")  # the bar leaves nothing behind
    os.close(ours)
