"""The server as a process: start, signals, losing its database, refusals to start."""

import asyncio
import http.client
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import psutil
import pytest
from agent_sessions.v1 import session_pb2, session_service_pb2, session_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from session_service.postgres.embedded import running_postmaster

from tests.fixtures.coverage import python_arguments
from tests.fixtures.postgres import LoopThread
from tests.fixtures.servers import ServerFactory, ServerProcess, clean_environment


def ops_status(server: ServerProcess, path: str) -> int:
    connection = http.client.HTTPConnection(server.ops_address, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def save(server: ServerProcess, name: str, timeout: float = 30) -> int:
    """Save one message and return the revision's number."""
    state = session_pb2.AgentState(message_history=[session_pb2.Message(text="hello")])
    request = session_service_pb2.SaveSessionRequest(agent_id="a", session_name=name, snapshot=state)
    with grpc.insecure_channel(server.address) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        return int(stub.SaveSession(request, timeout=timeout, wait_for_ready=True).revision.revision)


def restored_text(server: ServerProcess, name: str) -> str:
    request = session_service_pb2.RestoreSessionRequest(agent_id="a", session_name=name)
    with grpc.insecure_channel(server.address) as channel:
        stub = session_service_pb2_grpc.SessionServiceStub(channel)
        return str(stub.RestoreSession(request, timeout=30).state.message_history[0].text)


@contextmanager
def saves_held_up(loop: LoopThread, database_url: str) -> Iterator[None]:
    """Let no save finish inside the block."""

    async def hold() -> tuple[asyncpg.Connection, asyncpg.transaction.Transaction]:
        connection = await asyncpg.connect(database_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("LOCK TABLE revisions IN ACCESS EXCLUSIVE MODE")
        return connection, transaction

    connection, transaction = loop.run(hold())
    try:
        yield
    finally:
        loop.run(transaction.rollback())
        loop.run(connection.close())


async def until_a_save_waits(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        async with asyncio.timeout(20):
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'revisions'::regclass"
            while not await connection.fetchval(query):  # noqa: ASYNC110 - another process's lock has no event
                await asyncio.sleep(0.02)
    finally:
        await connection.close()


@contextmanager
def save_in_flight(loop: LoopThread, server: ServerProcess, database_url: str) -> "Iterator[Future[int]]":
    with ThreadPoolExecutor(1) as pool, saves_held_up(loop, database_url):
        saving = pool.submit(save, server, "held up")
        loop.run(until_a_save_waits(database_url))
        yield saving


def test_embedded_start_and_stop(server: ServerFactory, data_dir: Path) -> None:
    process = server(data_dir=data_dir)
    told = process.wait_for_event("PostgreSQL is embedded")
    assert told["data_dir"] == str(data_dir)
    assert told["url"].startswith("postgresql://")
    assert (ops_status(process, "/healthz"), ops_status(process, "/readyz")) == (200, 200)
    postmaster = running_postmaster(data_dir / "pgdata")
    assert postmaster is not None
    assert process.stop() == 0
    assert not postmaster.is_running()
    assert process.log[-1]["event"] == "stopped"
    assert not [line for line in process.log if line["level"] in ("error", "critical")]


@pytest.mark.parametrize(("asked", "used"), [((), "uvloop"), (("--event-loop=asyncio",), "asyncio")])
def test_either_event_loop_serves(server: ServerFactory, data_dir: Path, asked: tuple[str, ...], used: str) -> None:
    process = server(*asked, data_dir=data_dir)
    assert process.wait_for_event("starting")["event_loop"] == used
    assert save(process, "kept") == 1
    assert restored_text(process, "kept") == "hello"
    assert process.stop() == 0


def test_what_was_acknowledged_survives_kill_and_start(server: ServerFactory, data_dir: Path) -> None:
    process = server(data_dir=data_dir)
    assert save(process, "kept") == 1
    process.kill()
    assert restored_text(server(data_dir=data_dir), "kept") == "hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_finish(
    server: ServerFactory, database_url: str, loop_thread: LoopThread, number: signal.Signals
) -> None:
    process = server(database_url=database_url)
    with save_in_flight(loop_thread, process, database_url) as saving:
        process.signal(number)
        assert process.wait_for_event("draining")["calls"] == 1
        assert ops_status(process, "/readyz") == 503
        assert ops_status(process, "/healthz") == 200
        assert not saving.done()
    assert saving.result(30) == 1
    assert process.wait() == 0


def test_the_drain_ends_with_its_timeout(server: ServerFactory, database_url: str, loop_thread: LoopThread) -> None:
    process = server("--drain-timeout=0.5", database_url=database_url)
    with save_in_flight(loop_thread, process, database_url) as saving:
        process.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError) as failed:
            saving.result(30)
        assert failed.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert process.wait() == 0


def test_a_second_signal_hurries(server: ServerFactory, database_url: str, loop_thread: LoopThread) -> None:
    process = server("--drain-timeout=3600", database_url=database_url)
    with save_in_flight(loop_thread, process, database_url) as saving:
        process.signal(signal.SIGTERM)
        process.wait_for_event("draining")
        process.signal(signal.SIGTERM)
        with pytest.raises(grpc.RpcError):
            saving.result(30)
    assert process.wait() == 0


def test_an_open_health_watch_does_not_hold_the_stop(server: ServerFactory, database_url: str) -> None:
    process = server("--drain-timeout=3600", database_url=database_url)
    with grpc.insecure_channel(process.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        process.signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert process.wait(20) == 0
        watch.cancel()


def test_a_signal_during_the_start_leaves_nothing(server: ServerFactory, data_dir: Path) -> None:
    process = server(data_dir=data_dir, wait=False)
    process.wait_for_event("operational HTTP listening")
    assert process.stop() == 0
    assert running_postmaster(data_dir / "pgdata") is None
    assert "listening" not in [line["event"] for line in process.log]


def test_a_lost_database_is_told_and_comes_back(server: ServerFactory, data_dir: Path) -> None:
    process = server(data_dir=data_dir)
    save(process, "before")
    postmaster = running_postmaster(data_dir / "pgdata")
    assert postmaster is not None
    # Stopped first: so that it is away long enough to be seen.
    for victim in [postmaster, *postmaster.children()]:
        victim.suspend()
    process.wait_until_not_serving()
    assert (ops_status(process, "/healthz"), ops_status(process, "/readyz")) == (200, 503)
    for victim in [*postmaster.children(), postmaster]:
        victim.kill()
    process.wait_until_serving()
    assert restored_text(process, "before") == "hello"
    assert process.stop() == 0


def test_a_taken_port_is_named(server: ServerFactory, data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flag in ("--listen", "--ops-listen"):
            process = server(f"{flag}=127.0.0.1:{port}", data_dir=data_dir, wait=False)
            assert process.wait() == 1
            assert flag in process.log[-1]["error"]
            assert str(port) in process.log[-1]["error"]
            assert "exception" not in process.log[-1]
            assert len(process.log) == len(process.lines)
    assert running_postmaster(data_dir / "pgdata") is None


def test_two_servers_never_share_a_port(server: ServerFactory, database_url: str) -> None:
    first = server(database_url=database_url)
    second = server(f"--listen={first.address}", database_url=database_url, wait=False)
    assert second.wait() == 1
    assert first.address in second.log[-1]["error"]


def test_a_data_directory_in_use_names_its_holder(server: ServerFactory, data_dir: Path) -> None:
    holder = server(data_dir=data_dir)
    second = server(data_dir=data_dir, wait=False)
    assert second.wait() == 1
    assert str(holder.pid) in second.log[-1]["error"]
    assert save(holder, "still there") == 1


def test_an_older_schema_is_refused_and_the_command_helps(server: ServerFactory, empty_database_url: str) -> None:
    process = server(database_url=empty_database_url, wait=False)
    assert process.wait() == 1
    assert "session-service migrate" in process.log[-1]["error"]
    migrate = [sys.executable, *python_arguments("session_service"), "migrate"]
    environment = clean_environment() | {"SESSION_SERVICE_DATABASE_URL": empty_database_url}
    for _ in range(2):
        subprocess.run(migrate, env=environment, check=True, capture_output=True, timeout=60)
    assert save(server(database_url=empty_database_url), "s") == 1


@pytest.mark.parametrize("command", ["serve", "migrate", "pack"])
def test_an_unreachable_database_is_one_line_without_the_password(command: str) -> None:
    url = "postgresql://owner:hunter2@127.0.0.1:1/sessions"
    flags = ["--ops-listen=127.0.0.1:0"] if command == "serve" else []
    done = subprocess.run(
        [sys.executable, *python_arguments("session_service"), command, "--database-url", url, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        env=clean_environment(),
    )
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_passwords_are_in_no_log_line(server: ServerFactory, database_url: str) -> None:
    process = server("--log-level=debug", database_url=database_url.replace("postgres@", "postgres:hunter2@"))
    save(process, "s")
    process.stop()
    assert "hunter2" not in "\n".join(process.lines)


def test_grpcurl_sees_services_and_error_details(server: ServerFactory, database_url: str, grpcurl: Path) -> None:
    process = server(database_url=database_url)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(grpcurl), "-plaintext", *arguments], capture_output=True, text=True, timeout=60)

    listed = run(process.address, "list").stdout.split()
    assert {"agent_sessions.v1.SessionService", "grpc.health.v1.Health"} <= set(listed)
    failed = run(
        "-d",
        '{"agent_id": "a", "session_name": "none"}',
        process.address,
        "agent_sessions.v1.SessionService/GetSession",
    )
    assert "SESSION_NOT_FOUND" in failed.stderr


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, *python_arguments("session_service"), "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("session-service ")


def test_nothing_runs_on_after_a_stop(server: ServerFactory, data_dir: Path) -> None:
    process = server(data_dir=data_dir)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    assert process.stop() == 0
    assert not [member for member in family if member.is_running()]
    assert not (data_dir / "run").exists()
