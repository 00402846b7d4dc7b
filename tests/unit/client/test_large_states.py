"""How the client chooses between one request and many, and what it does when that fails."""

import asyncio
from typing import Any

import pytest
from agent_sessions import (
    NO_RETRY,
    AgentState,
    InvalidField,
    Message,
    MessageTooLarge,
    Payload,
    SessionClient,
    State,
    StateTooLarge,
    TooManyTransfers,
    Unavailable,
    large_states,
)
from agent_sessions.v1 import session_service_pb2 as messages
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.scripted_server import Context, Failure, ScriptedServer, info, retry_after, saved

UPLOADED = messages.UploadSessionResponse()
UPLOADED.revision.revision = 7
LIMIT = 10_000
STATE = AgentState(message_history=[Message(text=f"{n} " * 50) for n in range(200)], values={"v": Payload(data=b"w")})
TOO_LARGE = Failure(StatusCode.RESOURCE_EXHAUSTED, "too large", info("MESSAGE_TOO_LARGE", limit="10000", actual="1"))
USE_DOWNLOAD = Failure(StatusCode.RESOURCE_EXHAUSTED, "too large", info("STATE_TOO_LARGE", limit="1", actual="2"))
NO_METHOD = Failure(StatusCode.UNIMPLEMENTED, "no such method", info("METHOD_NOT_FOUND"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_states, "LARGEST_REQUEST", LIMIT)
    monkeypatch.setattr(large_states, "BATCH_BYTES", 2_000)


def put_together(requests: list[Any]) -> messages.SaveSessionRequest:
    """Return the save that an upload is."""
    save = messages.SaveSessionRequest()
    save.CopyFrom(requests[0].header)
    for request in requests[1:]:
        assert request.ByteSize() < 2_100
        save.snapshot.message_history.extend(request.batch.message_history)
    return save


async def test_a_large_snapshot_is_uploaded(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [UPLOADED]
    answer = await client.save("a", "s", STATE, expected_revision=3, metadata={"k": "v"}, request_id="r" * 36)
    assert answer.revision.revision == 7
    (requests,) = server.requests
    assert len(requests) > 10
    assert put_together(requests) == messages.SaveSessionRequest(
        agent_id="a",
        session_name="s",
        snapshot=STATE,
        expected_revision=3,
        metadata={"k": "v"},
        request_id="r" * 36,
        client_id="worker-1",
    )


async def test_a_small_one_is_not(server: ScriptedServer, client: SessionClient) -> None:
    await client.save("a", "s", State(messages=["x" * (LIMIT - 200)]))
    assert [type(request) for request in server.requests] == [messages.SaveSessionRequest]


async def test_a_session_uploads_what_is_large(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [saved(1), UPLOADED]
    session = client.session("a", "s", user_id="u")
    await session.append(["first"], set_values={"v": "w"})
    await session.append(STATE.message_history, checkpoint_id="c")
    upload = put_together(server.requests[1])
    assert [upload.snapshot.message_history[0].text, *upload.snapshot.message_history[1:]] == [
        "first",
        *STATE.message_history,
    ]
    assert (upload.user_id, upload.checkpoint_id, upload.HasField("expected_revision")) == ("u", "c", False)
    assert set(upload.snapshot.values) == {"v"}
    assert (session.revision, session.message_count) == (7, 201)


async def test_a_server_whose_limit_is_lower(server: ScriptedServer, client: SessionClient) -> None:
    medium = AgentState(message_history=STATE.message_history[:50])
    lower = Failure(StatusCode.RESOURCE_EXHAUSTED, "large", info("MESSAGE_TOO_LARGE", limit="1000", actual="9"))
    server.script = [lower, lower, UPLOADED]
    await client.save("a", "s", medium)
    one, first, second = server.requests
    assert one.snapshot == put_together(first).snapshot == put_together(second).snapshot
    assert one.request_id == first[0].header.request_id == second[0].header.request_id
    assert max(request.ByteSize() for request in second[1:]) <= 520 < max(r.ByteSize() for r in first[1:])
    server.script = [lower]
    with pytest.raises(MessageTooLarge):  # no smaller piece would help
        await client.save("a", "s", medium)


async def test_a_delta_above_a_lower_limit_becomes_an_upload(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [saved(1), TOO_LARGE, TOO_LARGE, UPLOADED]
    session = client.session("a", "s")
    await session.append(["first"])
    await session.append(["x" * 3000])
    upload = put_together_any(server.requests[3])
    assert [message.text[:5] for message in upload.snapshot.message_history] == ["first", "xxxxx"]
    assert session.revision == 7


def put_together_any(requests: list[Any]) -> messages.SaveSessionRequest:
    save = requests[0].header
    for request in requests[1:]:
        save.snapshot.message_history.extend(request.batch.message_history)
    return save  # type: ignore[no-any-return]  # a list of anything


async def test_a_server_without_uploads_says_how_large_a_request_may_be(
    server: ScriptedServer, client: SessionClient
) -> None:
    server.script = [NO_METHOD, TOO_LARGE]
    with pytest.raises(MessageTooLarge) as refused:
        await client.save("a", "s", STATE)
    assert refused.value.limit == 10_000
    assert server.requests[1].snapshot == STATE
    server.script = [NO_METHOD, saved(2)]
    assert (await client.save("a", "s", STATE)).revision.revision == 2


async def test_an_upload_is_repeated_whole_with_the_same_id(server: ScriptedServer, client: SessionClient) -> None:
    busy = Failure(StatusCode.RESOURCE_EXHAUSTED, "busy", info("TOO_MANY_TRANSFERS"), retry_after(0.01))
    server.script = [Failure(StatusCode.UNAVAILABLE), busy, UPLOADED]
    await client.save("a", "s", STATE)
    first, second, third = map(put_together, server.requests)
    assert first == second == third
    assert first.request_id


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(StatusCode.INVALID_ARGUMENT, "no", info("INVALID_FIELD")), InvalidField),
        (USE_DOWNLOAD, StateTooLarge),
        (Failure(StatusCode.RESOURCE_EXHAUSTED, "busy", info("TOO_MANY_TRANSFERS"), retry_after(60)), TooManyTransfers),
    ],
)
async def test_refusals_are_typed(
    server: ScriptedServer, client: SessionClient, failure: Failure, kind: type[Exception]
) -> None:
    server.script = [failure]
    with pytest.raises(kind):
        await client.save("a", "s", STATE)
    assert server.unary == 1


async def test_a_refusal_before_anything_was_sent(server: ScriptedServer, client: SessionClient) -> None:
    """The server has no room, and so does not say that it is ready: nothing is sent."""
    server.is_ready = False
    server.script = [Failure(StatusCode.RESOURCE_EXHAUSTED, "busy", info("TOO_MANY_TRANSFERS"), retry_after(60))]
    with pytest.raises(TooManyTransfers):
        await client.save("a", "s", AgentState(message_history=[Message(text="x" * 1_000_000)] * 10))
    assert server.requests == []


async def test_a_connection_that_breaks_while_a_state_is_sent(server: ScriptedServer) -> None:
    async def break_off(requests: Any, context: Context) -> Any:
        asyncio.get_running_loop().create_task(server.stop())
        await server.release.wait()

    server.reads_uploads = False
    server.script = [break_off]
    async with SessionClient(server.target, timeout=10, retry=NO_RETRY) as client:
        with pytest.raises(Unavailable):
            await client.save("a", "s", AgentState(message_history=[Message(text="x" * 1_000_000)] * 30))


async def test_a_state_that_is_too_large_for_one_answer_is_downloaded(
    server: ScriptedServer, client: SessionClient
) -> None:
    def part(**fields: Any) -> messages.DownloadSessionResponse:
        return messages.DownloadSessionResponse(batch=messages.StateBatch(**fields))

    header = messages.DownloadHeader(state=AgentState(llm_provider="p", values={"a": Payload(data=b"1")}))
    header.revision.revision = 4
    parts = [
        messages.DownloadSessionResponse(header=header),
        part(values={"b": Payload(data=b"2")}),
        part(message_history=STATE.message_history[:50]),
        part(message_history=STATE.message_history[50:]),
    ]
    server.script = [USE_DOWNLOAD, Failure(StatusCode.UNAVAILABLE), parts]
    restored = await client.restore("a", "s", revision=4, message_limit=300, request_id="i" * 36)
    assert restored.agent_state.message_history == STATE.message_history
    assert {name: value.data for name, value in restored.agent_state.values.items()} == {"a": b"1", "b": b"2"}
    assert (restored.agent_state.llm_provider, restored.revision.revision) == ("p", 4)
    asked, _, download = server.requests
    assert download == messages.DownloadSessionRequest(
        agent_id="a",
        session_name="s",
        revision=4,
        message_limit=300,
        request_id="i" * 36,
        client_id="worker-1",
    )
    assert asked.request_id == download.request_id
    server.script = [USE_DOWNLOAD, parts]
    stored = await client.get_revision("a", "s", checkpoint_id="c")
    assert stored.agent_state is not None
    assert server.requests[-1] == messages.DownloadSessionRequest(
        agent_id="a", session_name="s", checkpoint_id="c", read_only=True
    )


async def test_a_download_that_breaks_is_begun_again(server: ScriptedServer) -> None:
    async def half(request: Any, context: Context) -> Any:
        async def parts() -> Any:
            yield messages.DownloadSessionResponse(batch=messages.StateBatch(message_history=[Message(text="half")]))
            await context.abort(StatusCode.UNAVAILABLE, "gone")

        return parts()

    whole = [messages.DownloadSessionResponse(batch=messages.StateBatch(message_history=[Message(text="whole")]))]
    server.script = [USE_DOWNLOAD, half, whole]
    async with SessionClient(server.target, timeout=10, retry=FAST) as client:
        restored = await client.restore("a", "s")
    assert [message.text for message in restored.agent_state.message_history] == ["whole"]
