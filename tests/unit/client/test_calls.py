"""What each method sends, and what it makes of the answer."""

import asyncio
import uuid
from datetime import UTC, datetime

import grpc
import pytest
from agent_sessions import ClientClosed, LoopState, SessionClient, State
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages

from tests.unit.client.scripted_server import ScriptedServer, saved

STATE = State(messages=["hello"], created_at=datetime(2026, 1, 2, tzinfo=UTC))


async def test_save_sends_every_argument(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [saved(4)]
    result = await client.save(
        "a",
        "s",
        STATE,
        expected_revision=0,
        user_id="u",
        labels={"k": "v"},
        checkpoint_id="c",
        metadata={"m": "n"},
        self_contained=True,
    )
    assert (result.revision.revision, result.session.session_name, result.replayed) == (4, "s", False)
    request = server.requests[0]
    assert (request.agent_id, request.session_name) == ("a", "s")
    assert request.HasField("expected_revision")
    assert request.expected_revision == 0
    assert (request.user_id, dict(request.labels.entries)) == ("u", {"k": "v"})
    assert (request.checkpoint_id, dict(request.metadata), request.self_contained) == ("c", {"m": "n"}, True)
    assert (request.client_id, uuid.UUID(request.request_id).version) == ("worker-1", 4)
    assert request.snapshot.message_history[0].text == "hello"


async def test_what_is_not_given_is_absent(server: ScriptedServer, client: SessionClient) -> None:
    await client.save("a", state=STATE)
    request = server.requests[0]
    assert request.session_name == ""
    assert not request.HasField("expected_revision")
    assert not request.HasField("labels")


async def test_empty_labels_are_present(server: ScriptedServer, client: SessionClient) -> None:
    await client.save("a", "s", STATE, labels={})
    assert server.requests[0].HasField("labels")


async def test_a_save_without_state_is_refused(client: SessionClient) -> None:
    with pytest.raises(TypeError, match="state"):
        await client.save("a", "s")


async def test_each_call_has_its_own_request_id(server: ScriptedServer, client: SessionClient) -> None:
    await client.save("a", "s", STATE)
    await client.save("a", "s", STATE)
    first, second = server.requests
    assert first.request_id != second.request_id


async def test_a_given_request_id_is_used(server: ScriptedServer, client: SessionClient) -> None:
    given = str(uuid.uuid4())
    await client.save("a", "s", STATE, request_id=given)
    assert server.requests[0].request_id == given


async def test_restore_decodes_the_state(server: ScriptedServer, client: SessionClient) -> None:
    state = client.codec.encode(STATE)
    server.script = [messages.RestoreSessionResponse(revision=pb.Revision(revision=3), state=state)]
    restored = await client.restore("a", "s", revision=3, message_limit=2)
    assert restored.agent_state == state
    assert restored.decode() == STATE
    assert restored.decode().loop_state is LoopState.IDLE
    request = server.requests[0]
    assert (request.WhichOneof("target"), request.revision, request.message_limit) == ("revision", 3, 2)
    assert (request.client_id, len(request.request_id)) == ("worker-1", 36)


async def test_restore_by_checkpoint_id(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [messages.RestoreSessionResponse()]
    await client.restore("a", "s", checkpoint_id="c")
    assert server.requests[0].WhichOneof("target") == "checkpoint_id"
    with pytest.raises(ValueError, match="exclude"):
        await client.restore("a", "s", checkpoint_id="c", revision=1)


async def test_get_revision_views(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [messages.GetRevisionResponse(state=client.codec.encode(STATE))]
    assert (await client.get_revision("a", "s")).decode() == STATE
    basic = await client.get_revision("a", "s", view="basic")
    assert basic.agent_state is None
    with pytest.raises(ValueError, match="without its state"):
        basic.decode()
    assert [request.view for request in server.requests] == [2, 1]


async def test_get_delete_and_undelete_return_the_session(server: ScriptedServer, client: SessionClient) -> None:
    session = pb.Session(session_name="s")
    server.script = [
        messages.GetSessionResponse(session=session),
        messages.DeleteSessionResponse(session=session),
        messages.UndeleteSessionResponse(session=session),
    ]
    assert await client.get_session("a", "s") == session
    assert await client.delete("a", "s", purge=True, expected_revision=2) == session
    assert await client.undelete("a", "s") == session
    _, delete, undelete = server.requests
    assert (delete.purge, delete.expected_revision, delete.client_id) == (True, 2, "worker-1")
    assert not undelete.HasField("expected_revision")
    assert delete.request_id != undelete.request_id != ""


def sessions_page(token: str, *names: str) -> messages.ListSessionsResponse:
    sessions = [pb.Session(session_name=name) for name in names]
    return messages.ListSessionsResponse(sessions=sessions, next_page_token=token)


def pages_of_sessions() -> list[messages.ListSessionsResponse]:
    return [
        sessions_page("t1", "1"),
        sessions_page("t2"),
        sessions_page("", "3"),
    ]


async def test_list_iterates_over_all_pages_lazily(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [*pages_of_sessions()]
    pager = client.list_sessions("a", labels={"k": "v"}, name_prefix="p", page_size=1)
    assert server.requests == []
    names = []
    async for session in pager:
        names.append(session.session_name)
        if session.session_name == "1":
            assert len(server.requests) == 1
    assert names == ["1", "3"]
    assert [request.page_token for request in server.requests] == ["", "t1", "t2"]
    assert all(r.labels == {"k": "v"} and r.name_prefix == "p" for r in server.requests)


async def test_a_single_page(server: ScriptedServer, client: SessionClient) -> None:
    token = "t1"  # noqa: S105 – of a page
    server.script = [
        messages.ListRevisionsResponse(revisions=[pb.Revision(revision=9)], next_page_token=token),
        messages.ListRevisionsResponse(revisions=[pb.Revision(revision=8)]),
    ]
    pager = client.list_revisions("a", "s", metadata={"k": "v"}, order_by="revision desc")
    page = await pager.page()
    assert ([r.revision for r in page.items], page.next_page_token) == ([9], token)
    assert [r.revision for r in (await pager.page(page.next_page_token)).items] == [8]
    assert server.requests[1].metadata == {"k": "v"}


async def test_metadata_is_sent(server: ScriptedServer) -> None:
    server.script = [saved(), messages.DeleteSessionResponse()]
    async with SessionClient(server.target, metadata={"x-team": "blue"}) as client:
        await client.save("a", "s", STATE)
        await client.delete("a", "s")
    assert [sent["x-team"] for sent in (*server.stream_metadata, *server.metadata)] == ["blue", "blue"]


async def test_default_client_id_is_one_per_process(server: ScriptedServer) -> None:
    assert SessionClient(server.target).client_id == SessionClient(server.target).client_id != ""


async def test_a_given_channel_is_used_and_left_open(server: ScriptedServer) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        for _ in range(2):
            async with SessionClient("nowhere:1", channel=channel) as client:
                await client.save("a", "s", STATE)
    assert len(server.requests) == 2


async def test_a_closed_client_says_so(client: SessionClient) -> None:
    await client.close()
    await client.close()
    with pytest.raises(ClientClosed):
        await client.get_session("a", "s")


async def test_close_ends_calls_in_flight(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [server.hang]
    call = asyncio.create_task(client.get_session("a", "s"))
    await asyncio.wait_for(server.arrived.wait(), 5)
    await client.close()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(call, 5)


async def test_cancelling_a_call_cancels_it_on_the_server(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [server.hang]
    call = asyncio.create_task(client.get_session("a", "s"))
    await asyncio.wait_for(server.arrived.wait(), 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(server.cancelled.wait(), 5)


def test_a_client_may_be_made_before_the_event_loop() -> None:
    client = SessionClient("127.0.0.1:1", timeout=0.05)

    async def call() -> None:
        with pytest.raises(TimeoutError):
            await client.get_session("a", "s")
        await client.close()

    asyncio.run(call())
