"""sessionctl watch against a real server."""

import base64
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from agent_sessions.v1.session_pb2 import AgentState, Message

from tests.e2e.sessionctl_process import Sessionctl
from tests.fixtures.agents import Agent
from tests.fixtures.servers import ServerFactory, ServerProcess

STATE = AgentState(message_history=[Message(text="hello")])
MESSAGE = '{"role": "user", "content": "hello"}\n'

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def ctl(shared_server: ServerProcess) -> Sessionctl:
    return Sessionctl(shared_server.address)


@pytest.fixture
def start(ctl: Sessionctl) -> Iterator[Start]:
    """Return what starts `sessionctl watch` and waits until it watches."""
    with ExitStack() as stack:

        def start(*arguments: str, ctl: Sessionctl = ctl, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
            command = ctl.command("watch", *arguments)
            process = subprocess.Popen(command, env=ctl.environment(), stdout=stdout, stderr=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stderr is not None
            assert process.stderr.readline().startswith("watching ")
            return process

        yield start


def lines(process: "subprocess.Popen[str]") -> list[str]:
    """Return what it printed until it ended, well."""
    told, failed = process.communicate(timeout=30)
    assert (process.returncode, failed) == (0, "")
    return told.splitlines()


def documents(process: "subprocess.Popen[str]") -> list[Any]:
    return [json.loads(line) for line in lines(process)]


def test_what_happens_is_printed_as_it_happens(start: Start, agent: Agent) -> None:
    of_session = start(agent.id, "s", "--types", "saved,restored,deleted,undeleted", "--json", "--count", "4")
    of_agent = start(agent.id, "--count", "2")
    of_all = start("--types", "undeleted", "--output", "json", "--count", "1")
    agent.save("s", STATE)
    assert of_session.stdout is not None
    first = json.loads(of_session.stdout.readline())
    assert (first["type"], first["agent_id"], first["session_name"]) == ("EVENT_TYPE_SAVED", agent.id, "s")
    assert (first["revision"], first["actor"]) == ("1", "anonymous")
    agent.save("other", STATE)
    agent.restore("s")
    agent.restore("other")
    agent.delete("s")
    agent.undelete("s")
    kinds = [document["type"].removeprefix("EVENT_TYPE_") for document in documents(of_session)]
    assert kinds == ["RESTORED", "DELETED", "UNDELETED"]
    restored = [line.split()[2:7] for line in lines(of_agent)]
    assert restored == [["restored", f"{agent.id}/{name}", "revision", "1", "by"] for name in ("s", "other")]
    assert documents(of_all)[0]["agent_id"] == agent.id


def test_a_token_goes_on_after_its_event(start: Start, agent: Agent) -> None:
    watching = start(agent.id, "--types", "saved", "--json", "--count", "1")
    for _ in range(3):
        agent.save("s", STATE)
    (first,) = documents(watching)
    token = first["resume_token"]
    again = documents(start(agent.id, "--types", "saved", "--json", "--count", "2", "--resume-token", token))
    assert [document["revision"] for document in again] == ["2", "3"]


def test_it_outlives_the_server(server: ServerFactory, database_url: str, start: Start) -> None:
    process = server(database_url=database_url)
    address = process.address
    ctl = Sessionctl(address)
    watching = start("a", "--types", "saved", "--json", "--count", "2", ctl=ctl)
    save = ("save", "a", "s", "--messages", "-")
    ctl.document(*save, stdin=MESSAGE)
    process.kill()
    server(f"--listen={address}", database_url=database_url)
    ctl.document(*save, stdin=MESSAGE)
    assert [document["revision"] for document in documents(watching)] == ["1", "2"]


def test_ctrl_c_ends_it_quietly(start: Start, agent: Agent) -> None:
    watching = start(agent.id)
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=30) == ("", "")
    assert watching.returncode == 130


def test_a_reader_that_goes_away_is_no_error(start: Start, agent: Agent) -> None:
    reader, writer = os.pipe()
    try:
        watching = start(agent.id, "--types", "saved", stdout=writer)
    finally:
        os.close(reader)
        os.close(writer)
    agent.save("s", STATE)
    assert watching.communicate(timeout=30)[1] == ""
    assert watching.returncode == 141


def test_refusals(ctl: Sessionctl, agent: Agent) -> None:
    code, line = ctl.failure("watch", agent.id, "--resume-token", base64.b64encode(b"nonsense").decode())
    assert (code, line.startswith("sessionctl: INVALID_RESUME_TOKEN: ")) == (1, True)
    code, line = ctl.failure("watch", "bad\x1bname")
    assert (code, line.startswith("sessionctl: INVALID_FIELD: agent_id")) == (1, True)
    code, line = Sessionctl("127.0.0.1:1").failure("watch", "--timeout", "0.5")
    assert (code, "UNAVAILABLE" in line) == (4, True)
