"""What a person with the real grpcurl sees, who has no stubs: only reflection."""

import base64
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.servers import ServerProcess

SERVICE = "agent_sessions.v1.SessionService"
NOT_FOUND = 64 + 5
"""grpcurl exits with 64 and the status' number."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(grpcurl: Path, shared_server: ServerProcess) -> Run:
    """Return a function that runs grpcurl against the shared server: flags first, then what follows the address."""

    def run_grpcurl(
        *words: str, flags: tuple[str, ...] = (), stdin: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        command = [str(grpcurl), "-plaintext", "-max-time", "30", *flags, shared_server.address, *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)

    return run_grpcurl


@pytest.fixture
def call(run: Run) -> Callable[..., Any]:
    """Return a function that makes a call that must succeed, and returns its answer."""

    def make(rpc: str, request: dict[str, Any], *flags: str) -> Any:
        done = run(f"{SERVICE}/{rpc}", flags=("-d", json.dumps(request), *flags))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return make


def test_list(run: Run) -> None:
    services = run("list").stdout.split()
    assert services == [
        "agent_sessions.v1.SessionService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    ]
    methods = run("list", SERVICE).stdout.split()
    assert methods == sorted(
        f"{SERVICE}.{rpc}"
        for rpc in (
            "SaveSession",
            "SaveSessions",
            "UploadSession",
            "RestoreSession",
            "DownloadSession",
            "GetSession",
            "GetRevision",
            "ListSessions",
            "ListRevisions",
            "DeleteSession",
            "UndeleteSession",
            "WatchSessions",
        )
    )


def test_describe(run: Run) -> None:
    service = run("describe", SERVICE).stdout
    assert "rpc SaveSession ( .agent_sessions.v1.SaveSessionRequest )" in service
    message = run("describe", "agent_sessions.v1.SaveSessionRequest").stdout
    assert "optional int64 expected_revision = 5;" in message
    assert "oneof content" in message
    assert "LOOP_STATE_WAITING_FOR_INPUT = 4;" in run("describe", "agent_sessions.v1.LoopState").stdout
    template = run("describe", "agent_sessions.v1.AgentState", flags=("-msg-template",)).stdout
    assert '"message_history"' in template


def test_save_and_restore(call: Callable[..., Any]) -> None:
    data = base64.b64encode(bytes(range(256))).decode()
    state = {
        "message_history": [
            {
                "message_id": "1",
                "role": "ROLE_USER",
                "create_time": "2026-01-02T03:04:05.123456789Z",
                "text": "hi \u0000 é",
            },
            {"role": "ROLE_TOOL", "payload": {"content_type": "application/octet-stream", "data": data}},
        ],
        "loop_state": "LOOP_STATE_THINKING",
        "created_at": "0001-01-01T00:00:00Z",
        "llm_provider": "provider",
        "auth_context": {"type": "api_key"},
        "values": {"v": {"data": data}},
    }
    names = {"agent_id": f"agent-{uuid.uuid4().hex}", "session_name": "s"}
    saved = call("SaveSession", {**names, "snapshot": state})
    assert (saved["revision"]["revision"], saved["session"]["head_revision"]) == ("1", "1")
    restored = call("RestoreSession", names)
    assert restored["state"] == state | {"agent_id": names["agent_id"]}
    assert restored["revision"] == saved["revision"]
    assert "state" not in call("GetRevision", names)


def test_upload_and_download(run: Run) -> None:
    names = {"agent_id": f"agent-{uuid.uuid4().hex}", "session_name": "s"}
    texts = ["x" * 3_000_000, "y" * 3_000_000, "z"]
    requests: list[dict[str, Any]] = [{"header": {**names, "snapshot": {"llm_provider": "p"}}}]
    requests += [{"batch": {"message_history": [{"text": text}]}} for text in texts]
    uploaded = run(f"{SERVICE}/UploadSession", stdin="\n".join(map(json.dumps, requests)), flags=("-d", "@"))
    assert uploaded.returncode == 0, uploaded.stderr
    assert json.loads(uploaded.stdout)["revision"]["message_count"] == "3"
    refused = run(f"{SERVICE}/RestoreSession", flags=("-d", json.dumps(names)))
    assert refused.returncode == 64 + 8
    assert "DownloadSession" in refused.stderr
    downloaded = run(f"{SERVICE}/DownloadSession", flags=("-d", json.dumps(names)))
    assert downloaded.returncode == 0, downloaded.stderr
    header, *batches = documents(downloaded.stdout)
    assert header["header"]["state"]["llm_provider"] == "p"
    assert [message["text"] for part in batches for message in part["batch"]["message_history"]] == texts


def documents(text: str) -> Iterator[Any]:
    """Give the JSON documents that follow each other."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        document, place = decoder.raw_decode(text, place)
        yield document
        place += len(text[place:]) - len(text[place:].lstrip())


def test_list_page_by_page(call: Callable[..., Any]) -> None:
    agent = f"agent-{uuid.uuid4().hex}"
    for number in range(5):
        call("SaveSession", {"agent_id": agent, "session_name": f"s{number}", "snapshot": {}})
    pages: list[list[str]] = []
    token = ""
    while not pages or token:
        page = call("ListSessions", {"agent_id": agent, "page_size": 2, "order_by": "name", "page_token": token})
        pages.append([session["session_name"] for session in page["sessions"]])
        token = page.get("next_page_token", "")
    assert pages == [["s0", "s1"], ["s2", "s3"], ["s4"]]


def test_an_error_shows_its_details_and_its_exit_code(run: Run) -> None:
    request = json.dumps({"agent_id": "a", "session_name": "none"})
    failed = run(f"{SERVICE}/GetSession", flags=("-d", request))
    assert failed.returncode == NOT_FOUND
    assert "Code: NotFound" in failed.stderr
    assert "agents/a/sessions/none not found" in failed.stderr
    for part in ("google.rpc.ErrorInfo", '"reason": "SESSION_NOT_FOUND"', '"domain": "agent_sessions"'):
        assert part in failed.stderr.replace('":"', '": "')


def test_an_error_of_a_field_shows_the_field(run: Run) -> None:
    failed = run(f"{SERVICE}/ListSessions", flags=("-d", '{"page_size": -1}'))
    assert failed.returncode == 64 + 3
    shown = failed.stderr.replace('":"', '": "')
    for part in ("google.rpc.BadRequest", '"field": "page_size"', "INVALID_FIELD", "must be 0 or more, got -1"):
        assert part in shown


def test_health(run: Run) -> None:
    for flags in ((), ("-d", '{"service": ""}')):
        assert json.loads(run("grpc.health.v1.Health/Check", flags=flags).stdout) == {"status": "SERVING"}


def test_the_request_id_comes_back(run: Run) -> None:
    flags = ("-v", "-H", "x-request-id: mine-1", "-d", '{"agent_id": "a"}')
    assert "x-request-id: mine-1" in run(f"{SERVICE}/ListSessions", flags=flags).stdout
    failed = run(f"{SERVICE}/GetSession", flags=flags)
    assert "x-request-id: mine-1" in failed.stdout
    without = run(f"{SERVICE}/ListSessions", flags=("-v",)).stdout
    assert "x-request-id: " in without
    assert "mine-1" not in without
