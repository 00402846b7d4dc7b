"""A worker, an operator and a server, each a real process: what the operator restores, the worker goes on from."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.live_worker import SECRET, Worker
from tests.e2e.sessionctl_process import Sessionctl
from tests.fixtures.agents import Agent
from tests.fixtures.servers import ServerFactory, ServerProcess, clean_environment
from tests.fixtures.shared_server import Database

EXAMPLE = Path(__file__).parents[2] / "examples/worker.py"
TEXTS = ["one", "two", "three"]

Restore = Callable[[str, int], None]
"""Restores a revision of an agent's session `s`."""


@pytest.fixture
def workers(shared_server: ServerProcess, agent_id: str) -> Iterator[Callable[[], Worker]]:
    """Return what starts workers that follow one session."""
    with ExitStack() as stack:

        def start() -> Worker:
            worker = stack.enter_context(closing(Worker(shared_server.address, agent_id, "s")))
            worker.wait_for_event("following")
            return worker

        yield start


@pytest.fixture
def worker(workers: Callable[[], Worker]) -> Worker:
    """Return a worker that has saved three revisions and follows."""
    worker = workers()
    for text in TEXTS:
        worker.do("save", text=text)
    return worker


@pytest.fixture
def ctl(shared_server: ServerProcess) -> Sessionctl:
    return Sessionctl(shared_server.address)


@pytest.fixture(params=["sessionctl", "grpcurl"])
def operator(request: pytest.FixtureRequest, shared_server: ServerProcess, ctl: Sessionctl, grpcurl: Path) -> Restore:
    def by_sessionctl(agent_id: str, revision: int) -> None:
        ctl.document("restore", agent_id, "s", "--revision", str(revision))

    def by_grpcurl(agent_id: str, revision: int) -> None:
        asked = json.dumps({"agent_id": agent_id, "session_name": "s", "revision": revision})
        method = "agent_sessions.v1.SessionService/RestoreSession"
        command = [str(grpcurl), "-plaintext", "-d", asked, shared_server.address, method]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    return by_sessionctl if request.param == "sessionctl" else by_grpcurl


def events(database: Database, agent_id: str, kind: int) -> int:
    """Count an agent's events of a type: 1 is SAVED, 2 RESTORED."""
    query = "SELECT count(*) FROM session_events WHERE agent_id = $1 AND type = $2"
    (row,) = database.fetch(query, agent_id, kind)
    return int(row["count"])


def texts(agent: Agent, **target: Any) -> list[str]:
    state = agent.revision("s", view="REVISION_VIEW_FULL", **target).state
    return [json.loads(message.payload.data)["content"] for message in state.message_history]


def test_the_worker_goes_on_from_what_an_operator_restored(worker: Worker, operator: Restore, agent: Agent) -> None:
    operator(agent.id, 1)
    told = worker.wait_for_event("restored")
    assert (told["revision_restored"], told["revision"], told["texts"]) == (1, 1, ["one"])
    assert (told["provider"], told["secret"]) == ("provider of this worker", SECRET)
    assert worker.do("save", text="another way")["revision"] == 4
    saved = agent.revision("s", revision=4).revision
    assert (saved.parent_revision, saved.message_count) == (1, 2)
    assert texts(agent, revision=4) == ["one", "another way"]
    assert texts(agent, revision=3) == TEXTS, "the history is kept"


def test_a_failed_restore_leaves_the_state(
    worker: Worker, agent: Agent, ctl: Sessionctl, shared_database: Database
) -> None:
    assert worker.do("restore", revision=9)["error"] == "RevisionNotFound"
    worker.signal(signal.SIGSTOP)  # so that the damage comes before it reads
    ctl.document("restore", agent.id, "s", "--revision", "1")
    damage = """
        UPDATE revisions SET state = set_byte(state, 0, get_byte(state, 0) # 1)
        WHERE revision = 1 AND session_id = (SELECT session_id FROM sessions WHERE agent_id = $1)
    """
    shared_database.fetch(damage, agent.id)
    worker.signal(signal.SIGCONT)
    told = worker.wait_for_event("failed")
    assert (told["error"], told["revision"], told["texts"]) == ("CorruptData", 3, TEXTS)
    assert worker.do("restore", revision=1)["error"] == "CorruptData"
    told = worker.do("save", text="four")
    assert (told["revision"], told["texts"]) == (4, [*TEXTS, "four"])
    ctl.document("restore", agent.id, "s", "--revision", "2")
    assert worker.wait_for_event("restored")["texts"] == ["one", "two"]


def test_a_session_that_is_purged_before_it_is_read(worker: Worker, agent: Agent, ctl: Sessionctl) -> None:
    worker.signal(signal.SIGSTOP)
    ctl.document("restore", agent.id, "s", "--revision", "1")
    ctl.document("delete", agent.id, "s", "--purge")
    worker.signal(signal.SIGCONT)
    told = worker.wait_for_event("failed")
    assert (told["error"], told["texts"]) == ("SessionNotFound", TEXTS)
    told = worker.do("save", text="four")  # the whole state, into a new session of that name
    assert (told["revision"], texts(agent)) == (1, [*TEXTS, "four"])


def test_a_restore_that_is_delivered_twice_is_applied_once(
    worker: Worker, agent: Agent, ctl: Sessionctl, shared_database: Database
) -> None:
    ctl.document("restore", agent.id, "s", "--revision", "1")
    worker.wait_for_event("restored")
    worker.do("save", text="after it")
    worker.do("follow", from_token=0)  # the server delivers all of it again
    ctl.document("restore", agent.id, "s", "--revision", "2")  # which comes after it
    worker.wait_for(lambda told: told.get("revision_restored") == 2)
    worker.do("follow", from_token=0)
    ctl.document("restore", agent.id, "s", "--revision", "3")
    assert worker.wait_for(lambda told: told.get("revision_restored") == 3)["texts"] == TEXTS
    assert worker.count("restored") == 3
    assert events(shared_database, agent.id, 2) == 3


def test_two_followers_do_not_answer_each_other(
    workers: Callable[[], Worker], agent: Agent, ctl: Sessionctl, shared_database: Database
) -> None:
    first, second = workers(), workers()
    for text in TEXTS:
        first.do("save", text=text)
    for revision in (1, 2):
        ctl.document("restore", agent.id, "s", "--revision", str(revision))
    for worker in (first, second):
        worker.wait_for(lambda told: told.get("revision_restored") == 2)
    first.do("restore", revision=3)
    second.wait_for(lambda told: told.get("revision_restored") == 3)
    first.do("save", text="four")
    ctl.document("restore", agent.id, "s", "--revision", "4")
    for worker in (first, second):  # answers to the restores before would have come before this one
        worker.wait_for(lambda told: told.get("revision_restored") == 4)
    assert (first.count("restored"), second.count("restored")) == (3, 4)
    assert (events(shared_database, agent.id, 2), events(shared_database, agent.id, 1)) == (4, 4)
    assert agent.get("s").head_revision == 4


def test_following_outlives_the_server(server: ServerFactory, database_url: str, agent_id: str) -> None:
    process = server(database_url=database_url)
    address = process.address
    with closing(Worker(address, agent_id, "s")) as worker:
        worker.wait_for_event("following")
        for text in TEXTS:
            worker.do("save", text=text)
        process.kill()
        process = server(f"--listen={address}", database_url=database_url)
        Sessionctl(address).document("restore", agent_id, "s", "--revision", "1")
        assert worker.wait_for_event("restored")["texts"] == ["one"]
        process.stop()
        process = server(f"--listen={address}", database_url=database_url)
        Sessionctl(address).document("restore", agent_id, "s", "--revision", "2")
        told = worker.wait_for(lambda told: told.get("revision_restored") == 2)
        assert told["texts"] == ["one", "two"]
        assert worker.count("restored") == 2


@pytest.fixture
def example(shared_server: ServerProcess, agent_id: str, data_dir: Path) -> Callable[[], "subprocess.Popen[str]"]:
    """Return what starts the example; each goes on where the one before was."""
    data_dir.mkdir()
    command = [sys.executable, "-W", "error", str(EXAMPLE), agent_id, "s", "--target", shared_server.address]
    command += ["--interval", "0.05", "--token-file", str(data_dir / "token")]
    return lambda: subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment(), text=True)


def line_of(example: "subprocess.Popen[str]", *parts: str) -> str:
    """Return the next line that has all of these."""
    assert example.stdout is not None
    return next(line for line in example.stdout if all(part in line for part in parts))


def test_the_example(
    example: Callable[[], "subprocess.Popen[str]"], agent_id: str, ctl: Sessionctl, shared_database: Database
) -> None:
    described = "provider example-model, authenticated by api_key"
    with example() as first:
        try:
            line_of(first, "goes on from revision 0, 0 messages")
            line_of(first, "saved revision", " 3 messages", described)
            ctl.document("restore", agent_id, "s", "--revision", "2")
            line_of(first, "restored by anonymous: goes on from revision 2, 2 messages", described)
            line_of(first, "saved revision", " 3 messages", described)
        finally:
            first.send_signal(signal.SIGTERM)
        line_of(first, "interrupted")
        first.send_signal(signal.SIGTERM)  # it has not ended yet, and must not die of another one
        assert first.communicate(timeout=30)[0] == ""
    assert first.returncode == 0
    ctl.document("restore", agent_id, "s", "--revision", "1")  # nobody is there
    with example() as second:
        try:
            line_of(second, "goes on from revision", described)
            line_of(second, "restored by anonymous: goes on from revision 1, 1 messages", described)
            line_of(second, "saved revision", " 2 messages", described)
        finally:
            second.send_signal(signal.SIGINT)
        second.communicate(timeout=30)
    assert second.returncode == 0
    assert events(shared_database, agent_id, 2) == 2
