"""What must not be kept is nowhere: in no file, no log line, no metric, no error."""

import http.client
import os
import subprocess
import sys
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import pytest
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_pb2 import AuthContext, Message
from grpc import StatusCode

from tests.fixtures.conversations import conversation
from tests.fixtures.coverage import python_arguments
from tests.fixtures.postgres import LoopThread, PostgresCluster
from tests.fixtures.refusals import refusal
from tests.fixtures.servers import ServerFactory, ServerProcess, clean_environment
from tests.fixtures.shared_server import Wire

# ---- the wire form, by hand: the stubs cannot say what the definition does not know


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field: a string, bytes, or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def group(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 3) + content + varint(number << 3 | 4)


def auth_contexts(secret: bytes, auth_type: bytes) -> dict[str, bytes]:
    """Return runs of AgentState's field 6, each with the secret where no field of AuthContext is."""
    known = field(1, auth_type)
    return {
        "beside the type": field(6, known + field(2, secret)),
        "before the type": field(6, field(2, secret) + known),
        "in a high field number": field(6, known + field(536_870_911, secret)),
        "in a nested message": field(6, known + field(3, field(1, field(1, secret)))),
        "in a group": field(6, known + group(4, field(1, secret) + group(5, field(2, secret)))),
        "sent twice, first": field(6, known + field(2, secret)) + field(6, known),
        "sent twice, second": field(6, known) + field(6, known + field(2, secret)),
        "sent twice, both": field(6, known + field(2, secret)) * 2,
        "beside it, as a group": field(6, known) + group(6, field(2, secret)),
        "many fields": field(6, known + b"".join(field(number, secret) for number in range(2, 30))),
    }


def save_request(name: str, *snapshots: bytes) -> bytes:
    """Return a SaveSessionRequest; several snapshots are merged, as protobuf has it."""
    return field(1, b"a") + field(2, name.encode()) + b"".join(field(3, snapshot) for snapshot in snapshots)


# ---- where to look


def holders(data_dir: Path, wanted: bytes) -> list[str]:
    """Return the files under data_dir that hold these bytes."""
    found = [Path(folder) / name for folder, _, names in os.walk(data_dir) for name in names]
    return [str(path.relative_to(data_dir)) for path in found if path.is_file() and wanted in path.read_bytes()]


def metrics(process: ServerProcess) -> str:
    connection = http.client.HTTPConnection(process.ops_address, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def checkpoint(process: ServerProcess, loop: LoopThread) -> None:
    """Have the server's embedded PostgreSQL write all that it holds into its files."""
    url = str(process.wait_for_event("PostgreSQL is embedded")["url"])

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    loop.run(run())


def test_what_is_unknown_in_an_auth_context_is_in_no_file(
    server: ServerFactory, data_dir: Path, loop_thread: LoopThread
) -> None:
    # Short states: above a KiB they would be compressed, and the search would find nothing in any case.
    secret, auth_type, text = (f"{kind}-{uuid.uuid4().hex}".encode() for kind in ("secret", "type", "text"))
    message = field(2, Message(text=text.decode()).SerializeToString())
    process = server("--log-level=debug", data_dir=data_dir)
    wire = Wire(process.address)
    for name, auth in auth_contexts(secret, auth_type).items():
        assert secret in auth
        wire.send("SaveSession", save_request(name, message + auth))
        restored = wire.send("RestoreSession", field(1, b"a") + field(2, name.encode()))
        assert secret not in restored
        state = pb.RestoreSessionResponse.FromString(restored).state
        assert state.auth_context == AuthContext(type=auth_type.decode())
        assert [m.text for m in state.message_history] == [text.decode()]
    twice = auth_contexts(secret, auth_type)["beside the type"]
    wire.send("SaveSession", save_request("merged", twice, message + twice))
    refused = refusal(wire.send, "SaveSession", save_request("cut off", twice)[:-1])
    assert (refused.reason, secret.decode() in repr(refused)) == ("UNDECODABLE_REQUEST", False)
    wire.send("SaveSession", save_request("beside", field(99, secret + b"-kept")))
    wire.channel.close()

    checkpoint(process, loop_thread)
    seen = "\n".join(process.lines) + metrics(process)
    kept = secret + b"-kept"
    assert process.stop() == 0
    for wanted in (text, auth_type, kept):  # the search finds what is there
        assert any("base/" in path for path in holders(data_dir, wanted))
        assert any("pg_wal" in path for path in holders(data_dir, wanted))
    assert holders(data_dir, secret) == holders(data_dir, kept)
    assert occurrences(data_dir, secret) == occurrences(data_dir, kept)
    assert "cut off" not in seen
    for wanted in (secret, auth_type, text):
        assert wanted.decode() not in seen


def occurrences(data_dir: Path, wanted: bytes) -> int:
    return sum((data_dir / path).read_bytes().count(wanted) for path in holders(data_dir, wanted))


# ---- the password of the database

PASSWORD = "hunter2/ü&x"  # noqa: S105  made up, and of characters that a URL writes in another way
SHAPES = ("hunter2", quote(PASSWORD, safe=""), quote(quote(PASSWORD, safe=""), safe=""))


def with_password(url: str) -> str:
    """Return the URL with the password in both places where one may stand."""
    parts = urlsplit(url)
    secret = quote(PASSWORD, safe="")
    user, _, host = parts.netloc.rpartition("@")
    query = f"{parts.query}&password={secret}".lstrip("&")
    return urlunsplit(parts._replace(netloc=f"{user}:{secret}@{host}", query=query))


def assert_no_password(texts: Iterable[str]) -> None:
    for text in texts:
        assert not [shape for shape in SHAPES if shape in text], text


def test_a_running_server_tells_nobody_its_password(
    server: ServerFactory, postgres: PostgresCluster, database_url: str
) -> None:
    process = server("--log-level=debug", database_url=with_password(database_url))
    wire = Wire(process.address)
    save = pb.SaveSessionRequest(agent_id="a", session_name="s", snapshot=conversation("x"))
    wire.stub.SaveSession(save, timeout=30)
    with no_connections(postgres, urlsplit(database_url).path[1:]):
        process.wait_until_not_serving()
        refused = refusal(wire.stub.SaveSession, save, timeout=60)
        assert (refused.code, refused.reason) == (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
        assert refused.retry_after
    process.wait_until_serving()
    wire.stub.SaveSession(save, timeout=30)
    assert_no_password([repr(refused), metrics(process)])
    wire.channel.close()
    assert process.stop() == 0
    assert len(process.lines) > 5
    assert_no_password(process.lines)


class no_connections:  # noqa: N801  reads as a statement
    """Lets nobody connect to a database, and ends who is."""

    def __init__(self, postgres: PostgresCluster, database: str) -> None:
        self._postgres = postgres
        self._database = database

    def __enter__(self) -> None:
        self._postgres.execute(f'ALTER DATABASE "{self._database}" ALLOW_CONNECTIONS false')
        self._postgres.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._database}'"  # noqa: S608  its own name
        )

    def __exit__(self, *_: object) -> None:
        self._postgres.execute(f'ALTER DATABASE "{self._database}" ALLOW_CONNECTIONS true')


def unreachable(url: str) -> Iterator[str]:
    """Yield URLs of databases that cannot be used, for different reasons."""
    parts = urlsplit(url)
    yield urlunsplit(parts._replace(path="/no_such_database"))
    yield "postgresql://owner@127.0.0.1:1/sessions"
    yield "postgresql://owner@no-such-host.invalid/sessions"
    yield urlunsplit(parts._replace(netloc="no_such_role@"))


@pytest.mark.parametrize("command", ["serve", "migrate", "pack"])
@pytest.mark.parametrize("number", range(4))
def test_a_failed_connection_tells_nobody_the_password(postgres: PostgresCluster, command: str, number: int) -> None:
    url = with_password(list(unreachable(postgres.dsn))[number])
    done = run_to_its_end(command, "--ops-listen=127.0.0.1:0", "--listen=127.0.0.1:0", url=url)
    assert done.returncode == 1
    assert done.stderr
    assert_no_password([done.stdout, done.stderr])


def run_to_its_end(command: str, *flags: str, url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *python_arguments("session_service"), command, "--log-level=debug", *flags],
        env=clean_environment() | {"SESSION_SERVICE_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("shape", ["http://owner:{}@host/db", "owner:{}@host", "postgresql://owner:{}@host:x/db"])
def test_a_malformed_url_is_refused_without_its_password(shape: str) -> None:
    done = run_to_its_end("migrate", url=shape.format(quote(PASSWORD, safe="")))
    assert done.returncode in (1, 2)
    assert done.stderr
    assert_no_password([done.stdout, done.stderr])
