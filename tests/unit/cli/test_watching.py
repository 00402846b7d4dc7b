"""`sessionctl watch` against a scripted server: what it prints, and how it ends."""

import argparse
import asyncio
import json

import pytest
from agent_sessions import RetryPolicy, SessionClient
from agent_sessions.cli.arguments import parser
from agent_sessions.cli.failures import CommandFailed, ExitCode, from_error
from agent_sessions.cli.watching import watch
from agent_sessions.errors import AgentSessionsError
from agent_sessions.v1 import session_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from tests.unit.client.scripted_server import Failure, ScriptedServer, WatchCall, expired


def arguments(*words: str) -> argparse.Namespace:
    return parser({}).parse_args(["watch", *words])


def events(call: WatchCall) -> None:
    call.created()
    names = {"agent_id": "a", "session_name": "s\x1b", "actor": "anonymous", "create_time": Timestamp(seconds=1)}
    call.event("t1", type=pb.EVENT_TYPE_SAVED, revision=3, **names)
    call.event("t2", revision=2, client_id="w", **names)
    call.event("t3", revision=1, **names)


async def run(server: ScriptedServer, *words: str) -> tuple[ExitCode, WatchCall]:
    async with SessionClient(server.target, timeout=5) as client:
        running = asyncio.create_task(watch(client, arguments(*words)))
        call = await server.next_watch()
        events(call)
        return await asyncio.wait_for(running, 5), call


async def test_lines_for_people(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, call = await run(server, "a", "s", "--types", "saved,restored", "--count", "2")
    assert code is ExitCode.FINE
    told = capsys.readouterr()
    assert told.err == "watching agents/a/sessions/s: saved, restored …\n"
    first, second = told.out.splitlines()
    assert first.split()[2:] == ["saved", "a/s\N{REPLACEMENT CHARACTER}", "revision", "3", "by", "anonymous"]
    assert second.split()[2:] == ["restored", *first.split()[3:5], "2", "by", "anonymous", "(w)"]
    assert (call.request.agent_id, call.request.session_name) == ("a", "s")
    assert list(call.request.types) == [1, 2]
    await asyncio.wait_for(call.gone.wait(), 5)


async def test_lines_for_programs(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    _, call = await run(server, "--json", "--count", "3", "--resume-token", "dDA=")
    assert call.request.resume_token == b"t0"
    told = capsys.readouterr()
    assert told.err == "watching all agents: restored …\n"
    documents = [json.loads(line) for line in told.out.splitlines()]
    assert [document["resume_token"] for document in documents] == ["dDE=", "dDI=", "dDM="]
    assert [document["type"] for document in documents] == ["EVENT_TYPE_SAVED", *["EVENT_TYPE_RESTORED"] * 2]
    assert documents[0]["event_id"] == "t1"
    assert documents[0]["revision"] == "3"


async def test_an_expired_token_tells_the_oldest(server: ScriptedServer) -> None:
    async with SessionClient(server.target, timeout=5) as client:
        running = asyncio.create_task(watch(client, arguments("--resume-token", "AAAA")))
        (await server.next_watch()).end(expired("dDA="))
        with pytest.raises(
            CommandFailed, match="CURSOR_EXPIRED: old; the oldest token that would do is dDA="
        ) as caught:
            await asyncio.wait_for(running, 5)
    assert caught.value.code is ExitCode.REFUSED


async def test_a_server_must_be_found_within_the_timeout(server: ScriptedServer) -> None:
    retry = RetryPolicy(initial_backoff=30, max_backoff=30)
    async with SessionClient(server.target, retry=retry) as client:
        running = asyncio.create_task(watch(client, arguments("--timeout", "0.3")))
        (await server.next_watch()).end(Failure(StatusCode.UNAVAILABLE, "going away"))
        with pytest.raises(AgentSessionsError) as caught:
            await asyncio.wait_for(running, 5)
    failed = from_error(caught.value)
    assert failed.code is ExitCode.UNAVAILABLE
    assert "0.3 s" in str(failed)
    assert "going away" in str(failed)
