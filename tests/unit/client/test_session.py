"""What a Session sends, and how it goes on after what can go wrong."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from agent_sessions import (
    KEEP,
    AgentIdMismatch,
    AgentState,
    DeadlineExceeded,
    InvalidField,
    LoopState,
    RevisionMismatch,
    SessionClient,
    State,
    Unavailable,
    UnsupportedValue,
)
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from grpc import StatusCode

from tests.unit.client.scripted_server import Context, Failure, ScriptedServer, info

BASE_GONE = Failure(StatusCode.FAILED_PRECONDITION, "gone", info("BASE_REVISION_NOT_FOUND"))
MISMATCH = Failure(StatusCode.ABORTED, "no", info("REVISION_MISMATCH", current_revision="9"))
UNAVAILABLE = Failure(StatusCode.UNAVAILABLE, "later", info("SHUTTING_DOWN"))
REFUSED = Failure(StatusCode.INVALID_ARGUMENT, "labels: no", info("INVALID_FIELD", field="labels"))


def stored(revision: int) -> messages.SaveSessionResponse:
    answer = messages.SaveSessionResponse()
    answer.revision.revision = answer.session.head_revision = revision
    answer.revision.etag = f"etag-{revision}"
    return answer


def read(revision: int, state: AgentState, head: int | None = None) -> messages.RestoreSessionResponse:
    answer = messages.RestoreSessionResponse(state=state)
    answer.revision.revision = revision
    answer.revision.etag = f"etag-{revision}"
    answer.session.head_revision = head or revision
    return answer


def texts(given: Any) -> list[str]:
    return [message.text for message in given]


async def test_the_first_append_begins_a_session_of_that_name(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1)]
    session = client.session("a", "s", user_id="u")
    saved = await session.append(["one"], checkpoint_id="c", metadata={"k": "v"}, labels={})
    assert (saved.revision.revision, session.revision, session.message_count) == (1, 1, 1)
    (request,) = server.requests
    assert (request.agent_id, request.session_name, request.user_id, request.client_id) == ("a", "s", "u", "worker-1")
    assert (request.delta.base_revision, request.delta.base_etag, texts(request.delta.appended_messages)) == (
        0,
        "",
        ["one"],
    )
    assert (request.HasField("expected_revision"), request.expected_revision) == (True, 0)
    assert (request.checkpoint_id, request.metadata, request.HasField("labels")) == ("c", {"k": "v"}, True)
    assert uuid.UUID(request.request_id).version == 4


async def test_an_append_sends_what_is_new(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), stored(2), stored(3)]
    session = client.session("a", "s")
    await session.append(["one"], set_values={"v": 1, "w": b"x"}, llm_provider="p", auth_context={"type": "t"})
    await session.append(["two"], loop_state=LoopState.THINKING, remove_values=["w"])
    await session.append([{"three": 3}], llm_provider="", auth_context=None)
    first, second, third = (request.delta for request in server.requests)
    assert {name: value.data for name, value in first.set_values.items()} == {"v": b"1", "w": b"x"}
    assert (second.base_revision, second.base_etag, texts(second.appended_messages)) == (1, "etag-1", ["two"])
    assert (second.loop_state, second.llm_provider, second.auth_context.type) == (LoopState.THINKING, "p", "t")
    assert (list(second.remove_values), len(second.set_values), second.HasField("truncate_to")) == (["w"], 0, False)
    assert third.appended_messages[0].payload.data == b'{"three":3}'
    assert (third.loop_state, third.llm_provider, third.HasField("auth_context")) == (LoopState.THINKING, "", False)
    assert not any(request.HasField("expected_revision") for request in server.requests[1:])


async def test_a_save_finds_what_changed(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), stored(2), stored(3), stored(4), stored(5)]
    session = client.session("a", "s")
    values: dict[str, Any] = {"u": 0, "v": 1, "w": 2}
    edited = {"n": [1]}
    conversation: list[Any] = ["one", edited, "three"]
    await session.save(State(messages=conversation, values=values))
    await session.save(State(messages=conversation, values=values))
    edited["n"].append(2)
    await session.save(State(messages=conversation, values={"u": 0, "v": 5, "x": 3}))
    await session.save(State(messages=conversation[:1]))
    await session.save(State(messages=[*conversation[:1], "new"], loop_state=LoopState.STOPPED))
    first, unchanged, edit, shorter, longer = server.requests
    assert first.WhichOneof("content") == "snapshot"
    assert not first.HasField("expected_revision")
    assert unchanged.delta == pb.StateDelta(base_revision=1, base_etag="etag-1", loop_state=pb.LOOP_STATE_IDLE)
    assert (edit.delta.truncate_to, len(edit.delta.appended_messages)) == (1, 2)
    assert (sorted(edit.delta.set_values), list(edit.delta.remove_values)) == (["v", "x"], ["w"])
    assert (shorter.delta.truncate_to, sorted(shorter.delta.remove_values)) == (1, ["u", "v", "x"])
    assert texts(longer.delta.appended_messages) == ["new"]
    assert (longer.delta.HasField("truncate_to"), longer.delta.loop_state) == (False, LoopState.STOPPED)


async def test_another_created_at_needs_a_snapshot(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), stored(2)]
    session = client.session("a", "s")
    await session.save(State(messages=["one"]))
    await session.save(State(messages=["one"], created_at=datetime(2026, 1, 2, tzinfo=UTC)))
    assert server.requests[1].snapshot.HasField("created_at")


async def test_credentials_in_an_agent_state_are_not_sent(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), stored(2)]
    session = client.session("a", "s")
    state = AgentState()
    state.auth_context.MergeFromString(b"\x0a\x03key\x12\x06secret")
    await session.save(state)
    await session.save(state)
    for request in server.requests:
        assert b"secret" not in request.SerializeToString()
    assert [server.requests[0].snapshot.auth_context.type, server.requests[1].delta.auth_context.type] == ["key"] * 2
    assert b"secret" in state.SerializeToString()


async def test_a_base_that_is_gone_is_answered_by_a_snapshot(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), stored(2), BASE_GONE, stored(1), stored(2)]
    session = client.session("a", "s", user_id="u")
    await session.append(["one"], set_values={"v": 1, "w": 2}, llm_provider="p")
    await session.append(["two"])
    saved = await session.append(["three"], remove_values=["v"], checkpoint_id="c", loop_state=LoopState.THINKING)
    assert saved.revision.revision == 1
    _, _, delta, whole = server.requests
    assert delta.request_id != whole.request_id
    assert (whole.checkpoint_id, whole.user_id) == ("c", "u")
    assert (texts(whole.snapshot.message_history), list(whole.snapshot.values)) == (["one", "two", "three"], ["w"])
    assert (whole.snapshot.llm_provider, whole.snapshot.loop_state) == ("p", LoopState.THINKING)
    assert session.message_count == 3
    await session.append(["four"])
    assert (server.requests[-1].delta.base_revision, server.requests[-1].delta.base_etag) == (1, "etag-1")


async def test_a_whole_save_on_a_base_that_is_gone(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), BASE_GONE, stored(1)]
    session = client.session("a", "s")
    await session.save(State(messages=["one"]))
    await session.save(State(messages=["two"]))
    assert texts(server.requests[2].snapshot.message_history) == ["two"]
    assert session.message_count == 1


async def test_a_retry_repeats_the_request_exactly(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), UNAVAILABLE, UNAVAILABLE, stored(2), stored(3)]
    session = client.session("a", "s")
    await session.append(["one"])
    await session.append(["two"])
    await session.append(["three"])
    assert server.requests[1] == server.requests[2] == server.requests[3]
    assert server.requests[4].delta.base_revision == 2


async def test_a_refused_save_changes_nothing_here(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), REFUSED, stored(2)]
    session = client.session("a", "s")
    await session.append(["one"])
    with pytest.raises(InvalidField) as caught:
        await session.append(["two"], set_values={"v": 1})
    assert caught.value.field == "labels"
    await session.append(["three"])
    last = server.requests[-1].delta
    assert (last.base_revision, texts(last.appended_messages), len(last.set_values)) == (1, ["three"], 0)
    assert session.message_count == 2


async def test_what_cannot_be_encoded_changes_nothing(server: ScriptedServer, client: SessionClient) -> None:
    session = client.session("a", "s")
    for wrong in ({"new_messages": ["fine", 5]}, {"set_values": {"v": object()}}, {"loop_state": "idle"}):
        with pytest.raises(UnsupportedValue):
            await session.append(**wrong)
    with pytest.raises(AgentIdMismatch):
        await session.save(State(agent_id="b"))
    assert server.requests == []
    with pytest.raises(ValueError, match="session_name"):
        client.session("a", "")
    assert KEEP is not None


async def test_after_a_timeout_the_next_save_goes_on_from_what_was_acknowledged(
    server: ScriptedServer, client: SessionClient
) -> None:
    server.script = [stored(1), server.hang, stored(3)]
    session = client.session("a", "s")
    await session.append(["one"])
    with pytest.raises(DeadlineExceeded):
        await session.append(["lost"], timeout=0.2)
    server.release.set()
    await session.append(["two"])
    last = server.requests[-1].delta
    assert (last.base_revision, last.base_etag, texts(last.appended_messages)) == (1, "etag-1", ["two"])


async def test_after_a_cancellation_too(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [stored(1), server.hang, stored(3)]
    session = client.session("a", "s")
    await session.append(["one"])
    server.arrived.clear()
    call = asyncio.create_task(session.append(["lost"]))
    await asyncio.wait_for(server.arrived.wait(), 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    server.release.set()
    await session.append(["two"])
    assert server.requests[-1].delta.base_revision == 1
    assert session.message_count == 2


async def test_an_exclusive_session_tells_what_it_expects(server: ScriptedServer, client: SessionClient) -> None:
    state = AgentState(message_history=[pb.Message(text="theirs")])
    server.script = [stored(1), stored(2), MISMATCH, read(4, state, head=9), stored(10)]
    session = client.session("a", "s", exclusive=True)
    await session.save(State(messages=["one"]))
    await session.append(["two"])
    with pytest.raises(RevisionMismatch) as caught:
        await session.append(["three"])
    assert caught.value.current_revision == 9
    await session.restore(revision=4)
    await session.append(["mine"])
    saves = [request for request in server.requests if isinstance(request, messages.SaveSessionRequest)]
    assert [request.expected_revision for request in saves] == [0, 1, 2, 9]
    assert all(request.HasField("expected_revision") for request in saves)
    assert (saves[-1].delta.base_revision, saves[-1].delta.base_etag) == (4, "etag-4")


@pytest.mark.parametrize("call", ["append", "save"])
async def test_an_exclusive_session_does_not_follow_another_of_its_name(
    server: ScriptedServer, client: SessionClient, call: str
) -> None:
    server.script = [stored(1), BASE_GONE]
    session = client.session("a", "s", exclusive=True)
    await session.append(["one"])
    with pytest.raises(RevisionMismatch, match=r"a/s: revision 1 .* another session") as caught:
        await (session.append(["two"]) if call == "append" else session.save(State(messages=["one", "two"])))
    assert (caught.value.code, caught.value.reason) == (StatusCode.ABORTED, "REVISION_MISMATCH")
    assert caught.value.expected_revision == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("method", ["restore", "load"])
async def test_a_restarted_worker_goes_on_with_deltas(
    server: ScriptedServer, client: SessionClient, method: str
) -> None:
    state = client.codec.encode(State(messages=["one", {"two": 2}], values={"v": 1}, llm_provider="p"))
    answer = read(7, state)
    whole = messages.GetRevisionResponse.FromString(answer.SerializeToString()) if method == "load" else answer
    server.script = [whole, stored(8), stored(9)]
    session = client.session("a", "s")
    found = await getattr(session, method)()
    assert found.decode().messages == ["one", {"two": 2}]
    assert found.agent_state == state
    await session.append(["three"])
    await session.save(State(messages=["one", {"two": 2}, "three", "four"], values={"v": 1}))
    _, append, save = server.requests
    assert (append.delta.base_revision, append.delta.base_etag, append.delta.llm_provider) == (7, "etag-7", "p")
    assert not append.HasField("expected_revision")
    assert (texts(save.delta.appended_messages), len(save.delta.set_values)) == (["four"], 0)
    assert not save.delta.HasField("truncate_to")


async def test_saves_of_a_session_are_made_one_after_another(server: ScriptedServer, client: SessionClient) -> None:
    in_flight = 0

    async def count(request: Any, context: Context) -> messages.SaveSessionResponse:
        nonlocal in_flight
        in_flight += 1
        assert in_flight == 1
        await asyncio.sleep(0)
        in_flight -= 1
        return stored(request.delta.base_revision + 1)

    server.script = [count]
    session = client.session("a", "s")
    saved = await asyncio.gather(*(session.append([str(n)]) for n in range(20)))
    assert [s.revision.revision for s in saved] == [*range(1, 21)]
    assert [texts(request.delta.appended_messages) for request in server.requests] == [[str(n)] for n in range(20)]


async def test_waiting_for_earlier_saves_counts(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [server.hang, stored(1)]
    session = client.session("a", "s")
    first = asyncio.create_task(session.append(["one"]))
    await asyncio.wait_for(server.arrived.wait(), 5)
    with pytest.raises(DeadlineExceeded, match="earlier"):
        await session.append(["two"], timeout=0.1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.release.set()
    await session.append(["three"])
    assert len(server.requests) == 2


async def test_a_server_that_stays_away_is_told_by_type(server: ScriptedServer) -> None:
    server.script = [UNAVAILABLE]
    async with SessionClient(server.target, timeout=0.3) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            await client.session("a", "s").append(["one"])
    assert isinstance(caught.value.last_error, Unavailable)
