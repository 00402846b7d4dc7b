"""States larger than a message, through a real server: the client's own choice of the way, and callers that stop."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from agent_sessions import (
    AgentState,
    InvalidField,
    Message,
    MessageTooLarge,
    Payload,
    RetryPolicy,
    RevisionMismatch,
    SessionClient,
    StateTooLarge,
    SyncSessionClient,
    TooManyTransfers,
)
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1 import session_service_pb2_grpc as rpc

from tests.e2e.large_state_clients import state
from tests.e2e.sessionctl_process import Sessionctl
from tests.faults.database import SERVERS, query, until
from tests.fixtures.conversations import conversation
from tests.fixtures.figures import Tell
from tests.fixtures.refusals import read_refusal, refusal
from tests.fixtures.servers import ServerFactory, ServerProcess
from tests.fixtures.shared_server import Database, Wire

MIB = 1 << 20
LARGE = 6.0
"""MiB: more than a request takes."""
MEBIBYTES = float(os.environ.get("LARGE_STATES_MIB", "5"))
"""Of each of the 32 states; the promise is about 32, which takes a minute."""
PROCESSES, CLIENTS = 8, 4
STANDING = 6
MEMORY = 256
"""MiB: --transfer-memory."""
BUSY = f"""
    SELECT pid, state, query FROM pg_stat_activity
    WHERE pid IN ({SERVERS.strip()}) AND (state <> 'idle' OR backend_xmin IS NOT NULL)
"""  # noqa: S608  the statement of that module
UNFINISHED = "SELECT FROM transcripts WHERE upload_deadline > now()"
LOCKS = f"SELECT * FROM pg_locks WHERE pid IN ({SERVERS.strip()})"  # noqa: S608  as above


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncIterator[SessionClient]:
    async with SessionClient(shared_server.address, timeout=60) as client:
        yield client


def holds_nothing(database: Database) -> bool:
    """Tell whether the servers' connections are idle, without transactions and locks."""
    return not database.fetch(BUSY) and not database.fetch(LOCKS)


def calls(server: ServerProcess, method: str) -> list[str]:
    """Return how the calls of a method ended."""
    ours = [entry for entry in server.log if entry.get("event") == "call" and entry["method"].endswith(f"/{method}")]
    return [entry.get("reason", entry["code"]) for entry in ours]


# ---- the client


async def test_a_large_state_is_saved_and_restored_without_a_word(client: SessionClient, agent_id: str) -> None:
    large = state(1, LARGE)
    saved = await client.save(agent_id, "s", large, checkpoint_id="c", metadata={"k": "v"}, labels={"l": "m"})
    assert saved.revision.size_bytes > 4 * MIB
    assert dict(saved.revision.metadata) == {"k": "v"}
    for stored in (
        await client.restore(agent_id, "s"),
        await client.get_revision(agent_id, "s", checkpoint_id="c"),
        await client.get_revision(agent_id, "s", revision=1),
    ):
        assert stored.agent_state is not None
        assert stored.agent_state.message_history == large.message_history
        assert stored.agent_state.values == large.values
        assert stored.revision == saved.revision
    session = await client.get_session(agent_id, "s")
    assert session.last_restore_time.seconds > 0
    few = await client.restore(agent_id, "s", message_limit=2)
    assert list(few.agent_state.message_history) == list(large.message_history[-2:])


async def test_a_session_sends_large_changes_whole(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s")
    await session.append(["first"])
    more = list(state(2, LARGE).message_history)
    saved = await session.append(more)
    assert (saved.revision.revision, session.message_count) == (2, 1 + len(more))
    await session.append(["last"], set_values={"v": b"x"})
    whole = (await session.load()).agent_state
    assert whole is not None
    assert [whole.message_history[0].text, whole.message_history[-1].text] == ["first", "last"]
    assert list(whole.message_history[1:-1]) == more
    changed = AgentState(message_history=[*more, Message(text="new")])
    await session.save(changed)
    restored = await session.restore()
    assert restored.agent_state.message_history == changed.message_history


async def test_a_first_large_append_begins_a_session_only(client: SessionClient, agent_id: str) -> None:
    await client.save(agent_id, "s", conversation("there"))
    with pytest.raises(RevisionMismatch):
        await client.session(agent_id, "s").append(state(3, LARGE).message_history)


async def test_what_is_stored_is_not_stored_again(
    client: SessionClient, agent_id: str, emptied_database: Database
) -> None:
    large = state(4, LARGE)
    for number in range(3):
        await client.save(agent_id, "s", large)
        large.message_history.append(Message(text=f"more {number}"))
    (row,) = emptied_database.fetch("SELECT sum(raw_size)::bigint AS bytes FROM transcript_segments")
    assert row["bytes"] < large.ByteSize()
    assert emptied_database.row_counts()["transcripts"] == 1


async def test_many_small_messages_are_uploaded(client: SessionClient, agent_id: str) -> None:
    many = AgentState(message_history=[Message(text=str(n)) for n in range(50_001)])
    await client.save(agent_id, "s", many)
    restored = await client.restore(agent_id, "s")
    assert restored.agent_state.message_history == many.message_history


async def test_large_values_are_downloaded_in_parts(client: SessionClient, agent_id: str, wire: Wire) -> None:
    session = client.session(agent_id, "s")
    values = {f"v{n}": os.urandom(3 * MIB) for n in range(3)} | {f"w{n}": os.urandom(2000) for n in range(500)}
    for name, value in values.items():
        if name.startswith("v"):
            await session.append([name], set_values={name: value})
    await session.append(["w"], set_values={n: v for n, v in values.items() if n.startswith("w")})
    assert (await session.restore()).decode().values == values
    with grpc.insecure_channel(wire.address) as stock:
        request = pb.DownloadSessionRequest(agent_id=agent_id, session_name="s", read_only=True)
        assert len(list(rpc.SessionServiceStub(stock).DownloadSession(request, timeout=30))) > 4
    # Values must fit one message on the way in.
    too_large = AgentState(values={name: Payload(data=value) for name, value in values.items()})
    with pytest.raises(MessageTooLarge) as refused:
        await client.save(agent_id, "other", too_large)
    assert refused.value.limit == 4 * MIB


def test_the_synchronous_client(shared_server: ServerProcess, agent_id: str) -> None:
    large = state(5, LARGE)
    with SyncSessionClient(shared_server.address, timeout=60) as client:
        client.save(agent_id, "s", large)
        assert client.restore(agent_id, "s").agent_state.message_history == large.message_history
        session = client.session(agent_id, "s")
        session.load()
        session.append(["more"])
        restored = client.get_revision(agent_id, "s").agent_state
        assert restored is not None
        assert len(restored.message_history) == len(large.message_history) + 1


async def test_a_server_with_lower_limits(server: ServerFactory, database_url: str, agent_id: str) -> None:
    process = await asyncio.to_thread(
        server, "--max-request-bytes=50000", "--max-state-bytes=900000", database_url=database_url
    )
    words = AgentState(message_history=[Message(text=f"{n} " * 200) for n in range(500)])
    async with SessionClient(process.address, timeout=60) as client:
        await client.save(agent_id, "s", words)
        assert (await client.restore(agent_id, "s")).agent_state.message_history == words.message_history
        session = client.session(agent_id, "s")
        await session.load()
        await session.append(["x" * 30_000, "y" * 30_000])
        assert (await session.load()).revision.message_count == 502
        with pytest.raises(MessageTooLarge, match="at most 50000"):
            await session.append(["z" * 60_000])
        with pytest.raises(StateTooLarge, match="at most 900000") as refused:
            await client.save(agent_id, "t", AgentState(message_history=[Message(text="x" * 9000)] * 200))
        assert (refused.value.limit, (refused.value.actual or 0) > 900_000) == (900_000, True)
        bad = AgentState(message_history=[*[Message(text="x" * 9000)] * 50, Message(message_id="i" * 256)])
        with pytest.raises(InvalidField) as field:
            await client.save(agent_id, "t", bad)
        assert field.value.field == "snapshot.message_history[50].message_id"
    wanted = {"OK", "MESSAGE_TOO_LARGE", "STATE_TOO_LARGE", "INVALID_FIELD"}
    await until(lambda: set(calls(process, "UploadSession")) == wanted)


async def test_a_server_that_is_killed_in_the_middle(
    server: ServerFactory, database_url: str, agent_id: str, unmeasured_server: ServerFactory
) -> None:
    first = await asyncio.to_thread(unmeasured_server, database_url=database_url)
    address = first.address
    large = state(6, 60)
    async with SessionClient(address, retry=RetryPolicy(max_backoff=0.2), timeout=90) as client:
        saving = asyncio.create_task(client.save(agent_id, "s", large))
        await until(lambda: query(database_url, "SELECT FROM transcript_segments LIMIT 1"))
        await asyncio.to_thread(first.kill)
        assert not saving.done()
        await asyncio.to_thread(server, f"--listen={address}", database_url=database_url)
        saved = await saving
        assert (saved.revision.revision, saved.revision.message_count) == (1, len(large.message_history))
        restored = await client.restore(agent_id, "s")
        assert restored.agent_state.message_history == large.message_history


def test_sessionctl(shared_server: ServerProcess, agent_id: str, tmp_path: Path) -> None:
    run = Sessionctl(shared_server.address)
    lines = [json.dumps({"role": "user", "content": f"{n} " + "word " * 2000}) for n in range(800)]
    given, fetched = tmp_path / "messages.jsonl", tmp_path / "state.json"
    given.write_text("\n".join(lines))
    run.document("save", agent_id, "s", "--messages", given)
    run.document("restore", agent_id, "s", "--file", fetched)
    assert fetched.stat().st_size > 8 * MIB
    run.document("save", agent_id, "again", "--file", fetched)
    shown = run.document("show", agent_id, "again", "--revision", "1")
    assert len(shown["state"]["message_history"]) == 800


# ---- memory


@pytest.mark.timeout(600)
def test_many_large_states_at_once_take_bounded_memory(
    unmeasured_server: ServerFactory, database_url: str, tell: Tell
) -> None:
    process = unmeasured_server(f"--transfer-memory={MEMORY * MIB}", database_url=database_url)
    run_clients(process.address, ["warm"], 1, 1.0)
    before = memory(process.pid, "VmRSS")
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # forget the peak until now
    began = time.monotonic()
    run_clients(process.address, [f"agent-{n}" for n in range(PROCESSES)], CLIENTS, MEBIBYTES)
    growth = memory(process.pid, "VmHWM") - before
    tell(
        f"large states: {PROCESSES * CLIENTS} of {MEBIBYTES:g} MiB saved and restored at once in "
        f"{time.monotonic() - began:.1f} s; the server grew by {growth:.0f} MiB from {before:.0f} MiB"
    )
    assert growth <= MEMORY


def run_clients(address: str, agents: list[str], clients: int, mebibytes: float) -> None:
    """Run a process of clients for each agent, all at once."""
    words = [sys.executable, "-m", "tests.e2e.large_state_clients", address]
    running = [subprocess.Popen([*words, agent, str(clients), str(mebibytes)]) for agent in agents]
    assert [process.wait() for process in running] == [0] * len(agents)


def memory(pid: int, key: str) -> float:
    """Return a figure of a process in MiB; skip where the system has none."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        pytest.skip("needs /proc")
    found = re.search(rf"{key}:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


# ---- callers that stop


def header(agent_id: str, name: str = "s", **fields: Any) -> pb.UploadSessionRequest:
    fields = {"snapshot": conversation()} | fields
    request = pb.SaveSessionRequest(agent_id=agent_id, session_name=name, **fields)
    return pb.UploadSessionRequest(header=request)


def batch(*texts: str) -> pb.UploadSessionRequest:
    return pb.UploadSessionRequest(batch=pb.StateBatch(message_history=[Message(text=text) for text in texts]))


class Halting:
    """Requests that stop coming after the first few, until the test is over."""

    def __init__(self, *requests: pb.UploadSessionRequest) -> None:
        self._requests = requests
        self._over = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[pb.UploadSessionRequest]:
        return self._send()

    async def _send(self) -> AsyncIterator[pb.UploadSessionRequest]:
        for request in self._requests:
            yield request
        await self._over.wait()

    def end(self) -> None:
        self._over.set()


async def test_stopped_callers_hold_nothing_back(
    server: ServerFactory, shared_database: Database, agent_id: str
) -> None:
    """Six uploads and six downloads of one session stand still, in a pool of four; everybody else goes on."""
    process = await asyncio.to_thread(
        server, f"--transfer-memory={MEMORY * MIB}", "--pool-size=4", database_url=shared_database.dsn
    )
    async with (
        SessionClient(process.address, timeout=30) as client,
        grpc.aio.insecure_channel(process.address) as channel,
    ):
        stub: Any = rpc.SessionServiceStub(channel)
        large = state(7, 12)
        await client.save(agent_id, "s", large)
        halting = Halting(header(agent_id), *[batch("x" * 700_000) for _ in range(4)])
        others = len(shared_database.fetch(UNFINISHED))
        before = shared_database.row_counts()["transcript_segments"]
        uploads = [stub.UploadSession(halting) for _ in range(STANDING)]
        request = pb.DownloadSessionRequest(agent_id=agent_id, session_name="s")
        downloads = [stub.DownloadSession(request) for _ in range(STANDING)]
        for download in downloads:
            assert (await download.read()).header.revision.revision == 1
        await until(lambda: shared_database.row_counts()["transcript_segments"] >= before + STANDING * 3)
        await until(lambda: holds_nothing(shared_database))
        for number in range(20):
            saved = await client.save(agent_id, "s", conversation(str(number)), timeout=5)
            assert saved.revision.revision == number + 2
        await client.restore(agent_id, "s", timeout=5)
        await client.save(agent_id, "beside", large)
        await client.delete(agent_id, "s", purge=True, timeout=5)
        await until(lambda: holds_nothing(shared_database))  # but for a moment of the feed, perhaps
        for call in (*uploads, *downloads):
            call.cancel()
        halting.end()
        await until(lambda: len(calls(process, "UploadSession")) == STANDING + 2)
    assert shared_database.fetch("SELECT FROM transcripts WHERE upload_deadline IS NULL")
    assert len(shared_database.fetch(UNFINISHED)) == others + STANDING


async def test_a_caller_that_pauses_for_too_long_is_cut_off(
    server: ServerFactory, database_url: str, agent_id: str
) -> None:
    process = await asyncio.to_thread(server, "--transfer-idle-timeout=0.5", database_url=database_url)
    async with (
        SessionClient(process.address, timeout=30) as client,
        grpc.aio.insecure_channel(process.address) as channel,
    ):
        stub: Any = rpc.SessionServiceStub(channel)
        await client.save(agent_id, "s", state(8, 40))
        halting = Halting(header(agent_id), batch("x"))
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await stub.UploadSession(halting)
        halting.end()
        told = read_refusal(cut.value)
        assert (told.code, told.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "TRANSFER_STALLED")
        assert "0.5 s" in told.message
        download = stub.DownloadSession(pb.DownloadSessionRequest(agent_id=agent_id, session_name="s"))
        await download.read()
        await until(lambda: calls(process, "DownloadSession") == ["TRANSFER_STALLED"])
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await read_on(download)
        assert read_refusal(late.value).reason == "TRANSFER_STALLED"


async def read_on(download: Any) -> None:
    """Read to the end."""
    while await download.read() is not grpc.aio.EOF:
        pass


async def test_memory_for_one_transfer_at_a_time(server: ServerFactory, database_url: str, agent_id: str) -> None:
    process = await asyncio.to_thread(server, f"--transfer-memory={MIB}", database_url=database_url)
    async with grpc.aio.insecure_channel(process.address) as channel:
        stub: Any = rpc.SessionServiceStub(channel)
        halting = Halting(header(agent_id))
        standing = stub.UploadSession(halting)
        await standing.initial_metadata()
        async with SessionClient(process.address, timeout=30, retry=RetryPolicy(max_attempts=1)) as hasty:
            with pytest.raises(TooManyTransfers, match=f"all {MIB} bytes") as refused:
                await hasty.save(agent_id, "t", state(9, LARGE))
            assert refused.value.retry_delay == 1.0
        async with SessionClient(process.address, timeout=60) as patient:
            saving = asyncio.create_task(patient.save(agent_id, "t", state(9, LARGE)))
            await until(lambda: calls(process, "UploadSession").count("TOO_MANY_TRANSFERS") == 2)
            standing.cancel()
            halting.end()
            assert (await saving).revision.revision == 1


async def test_an_upload_that_breaks_leaves_no_revision(
    shared_server: ServerProcess, agent_id: str, emptied_database: Database
) -> None:
    before = len(calls(shared_server, "UploadSession"))
    async with grpc.aio.insecure_channel(shared_server.address) as channel:
        stub: Any = rpc.SessionServiceStub(channel)
        halting = Halting(header(agent_id), *[batch("x" * MIB)] * 3)
        broken = stub.UploadSession(halting)
        await until(lambda: emptied_database.row_counts()["transcript_segments"] >= 2)
        broken.cancel()
        halting.end()
        await until(lambda: len(calls(shared_server, "UploadSession")) > before)
    counts = emptied_database.row_counts()
    assert (counts["sessions"], counts["revisions"], counts["session_events"], counts["transcripts"]) == (0, 0, 0, 1)
    (left,) = emptied_database.fetch("SELECT upload_deadline - now() AS left FROM transcripts")
    assert 3500 < left["left"].total_seconds() <= 3600


# ---- what a stream may hold


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "header"),
        ([batch("a")], "header"),
        ([pb.UploadSessionRequest()], "header"),
        ([header("a"), header("a")], "batch"),
        ([header("a"), pb.UploadSessionRequest()], "batch"),
        ([header("a", snapshot=None, delta=pb.SaveSessionRequest().delta)], "header.delta"),
        ([header("a", snapshot=None)], "snapshot"),
        ([header("")], "agent_id"),
        ([header("a", request_id="x")], "request_id"),
        ([header("a"), pb.UploadSessionRequest(batch=pb.StateBatch(values={"v": Payload()}))], "batch.values"),
        ([header("a"), batch(*[""] * 20_001)], "batch.message_history"),
        (
            [
                header("a", snapshot=conversation("0")),
                batch("1", "2"),
                pb.UploadSessionRequest(batch=pb.StateBatch(message_history=[Message(role=99)])),  # type: ignore[arg-type]
            ],
            "snapshot.message_history[3].role",
        ),
    ],
)
def test_what_is_no_upload_is_refused(
    wire: Wire, emptied_database: Database, requests: list[pb.UploadSessionRequest], field: str
) -> None:
    refused = refusal(wire.stub.UploadSession, iter(requests), timeout=30)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refused.fields) == [field]
    assert not any(emptied_database.row_counts()[t] for t in ("sessions", "revisions", "transcript_segments"))


def test_a_message_above_the_limit_ends_an_upload(wire: Wire, agent_id: str) -> None:
    refused = refusal(wire.stub.UploadSession, iter([header(agent_id), batch("x" * 5 * MIB)]), timeout=30)
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")


def test_messages_of_the_header_come_first(wire: Wire, agent_id: str) -> None:
    requests = [header(agent_id, "", snapshot=conversation("0", "1")), batch("2"), batch(), batch("3", "4")]
    answer = wire.stub.UploadSession(iter(requests), timeout=30)
    assert answer.session.session_name.startswith("session-")
    request = pb.DownloadSessionRequest(agent_id=agent_id, session_name=answer.session.session_name, message_limit=4)
    first, *rest = wire.stub.DownloadSession(request, timeout=30)
    assert first.header.revision == answer.revision
    assert first.header.state.agent_id == agent_id
    assert [m.text for part in rest for m in part.batch.message_history] == ["1", "2", "3", "4"]


def test_every_part_of_a_download_fits_a_stock_client(wire: Wire, agent_id: str) -> None:
    sizes = [4 * MIB - 40, 4 * MIB - 40, 100, 3 * MIB, 3 * MIB]
    wire.stub.UploadSession(iter([header(agent_id), *[batch("x" * size) for size in sizes]]), timeout=30)
    with grpc.insecure_channel(wire.address) as stock:
        request = pb.DownloadSessionRequest(agent_id=agent_id, session_name="s")
        _, *parts = rpc.SessionServiceStub(stock).DownloadSession(request, timeout=30)
    assert [len(m.text) for part in parts for m in part.batch.message_history] == sizes


def test_what_is_too_large_for_one_answer_says_so(wire: Wire, agent_id: str) -> None:
    wire.stub.UploadSession(iter([header(agent_id), *[batch("x" * 3 * MIB)] * 2]), timeout=30)
    restore = pb.RestoreSessionRequest(agent_id=agent_id, session_name="s")
    get = pb.GetRevisionRequest(agent_id=agent_id, session_name="s", view=pb.REVISION_VIEW_FULL)
    for method, request in ((wire.stub.RestoreSession, restore), (wire.stub.GetRevision, get)):
        refused = refusal(method, request, timeout=30)
        assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STATE_TOO_LARGE")
        assert refused.metadata["limit"] == str(4 * MIB)
        assert int(refused.metadata["actual"]) > 6 * MIB
        assert refused.retry_after is None
        assert "DownloadSession" in refused.message
    described = wire.stub.GetSession(pb.GetSessionRequest(agent_id=agent_id, session_name="s"), timeout=30)
    assert not described.session.HasField("last_restore_time")
