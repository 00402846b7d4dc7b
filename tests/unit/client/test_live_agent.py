"""A live agent: what a restore keeps, what a failed one leaves, and which events are followed."""

import asyncio
import logging
from typing import Any

import pytest
from agent_sessions import (
    AgentSessionsError,
    AuthContext,
    ClientClosed,
    CorruptData,
    CursorExpired,
    LiveAgent,
    MalformedPayload,
    RevisionNotFound,
    SessionClient,
    SessionNotFound,
    State,
)
from agent_sessions.last_applied import LastApplied
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.live_agents import (
    DAMAGED,
    GONE,
    LATER,
    Hooks,
    Observed,
    Store,
    agent,
    call,
    client,
    hooks,
    operator,
    store,
    texts,
)
from tests.unit.client.scripted_server import Failure, ScriptedServer, WatchCall, expired, info

__all__ = ["agent", "call", "client", "hooks", "store"]  # fixtures


async def test_a_restore_keeps_the_provider_and_the_authentication(agent: Observed, store: Store) -> None:
    provider, auth = agent.state.llm_provider, agent.state.auth_context
    restored = await agent.restore(revision=2)
    assert restored.decode().llm_provider == "stored"
    assert agent.state.messages == ["1", "2"]
    assert agent.state.llm_provider is provider
    assert agent.state.auth_context is auth
    assert agent.revision == 2
    assert store.restores[0].client_id == agent.client_id


async def test_saves_are_deltas_of_what_was_restored(agent: Observed, store: Store) -> None:
    await agent.restore(revision=2)
    agent.state.messages.append("next")
    saved = await agent.save(checkpoint_id="c", metadata={"k": "v"}, labels={"l": "m"})
    assert (saved.revision.revision, agent.revision) == (4, 4)
    (request,) = store.saves
    assert (request.delta.base_revision, request.delta.base_etag, texts(request)) == (2, "etag-2", ["next"])
    assert (request.checkpoint_id, dict(request.metadata), dict(request.labels.entries)) == (
        "c",
        {"k": "v"},
        {"l": "m"},
    )
    assert (request.delta.auth_context.type, request.client_id) == ("key", agent.client_id)
    assert request.delta.llm_provider.endswith("Provider")
    assert b"secret" not in request.SerializeToString()


@pytest.mark.parametrize("failure", [GONE, DAMAGED, Failure(StatusCode.INTERNAL, "no", info("INTERNAL"))])
async def test_a_failed_restore_leaves_everything(agent: Observed, store: Store, failure: Failure) -> None:
    await agent.save()
    before = agent.state
    store.failures = [failure]
    with pytest.raises(AgentSessionsError):
        await agent.restore(revision=1)
    assert agent.state is before
    agent.state.messages.append("next")
    await agent.save()
    assert (store.saves[1].delta.base_revision, texts(store.saves[1])) == (4, ["next"])


async def test_so_does_one_that_cannot_be_decoded_or_is_cancelled(agent: Observed, store: Store) -> None:
    await agent.save()
    before = agent.state
    broken = pb.Message(payload=pb.Payload(content_type="application/json", data=b"{"))
    store.states["s", 1] = pb.AgentState(message_history=[broken])
    store.states["other", 1] = pb.AgentState(message_history=[broken])
    with pytest.raises(MalformedPayload):
        await agent.restore(revision=1)
    with pytest.raises(MalformedPayload):
        await agent.restore("other")
    arrived = asyncio.Event()

    async def hang(request: Any) -> None:
        arrived.set()
        await asyncio.Event().wait()

    store.before = hang
    restoring = asyncio.create_task(agent.restore(revision=2))
    await asyncio.wait_for(arrived.wait(), 5)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    store.before = None
    assert (agent.state, agent.session_name, agent.revision) == (before, "s", 4)
    agent.state.messages.append("next")
    await agent.save()
    assert (store.saves[1].delta.base_revision, texts(store.saves[1])) == (4, ["next"])


async def test_what_somebody_else_restores_is_applied(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    assert (call.request.agent_id, call.request.session_name) == ("a", "s")
    provider, auth = agent.state.llm_provider, agent.state.auth_context
    operator(call, "t1", 2)
    await hooks.wait_for(lambda: hooks.restored == [2])
    assert agent.state.messages == ["1", "2"]
    assert (agent.state.llm_provider, agent.state.auth_context) == (provider, auth)
    (read,) = store.reads
    assert (read.revision, read.view) == (2, messages.REVISION_VIEW_FULL)
    assert store.restores == []
    agent.state.messages.append("next")
    await agent.save()
    assert (store.saves[0].delta.base_revision, texts(store.saves[0])) == (2, ["next"])


async def test_a_repeated_event_is_applied_once(
    server: ScriptedServer, agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    operator(call, "t1", 2)
    operator(call, "t2", 2, event_id="t1")
    await agent.passed(call, "t3")
    call.end(LATER)
    again = await server.next_watch()
    assert again.request.resume_token == b"t3"
    again.created("t3")
    operator(again, "t4", 2, event_id="t1")
    await agent.passed(again, "t5")
    assert (hooks.restored, len(store.reads)) == ([2], 1)


async def test_its_own_events_are_ignored(agent: Observed, store: Store, call: WatchCall, hooks: Hooks) -> None:
    operator(call, "t1", 2, client_id=agent.client_id)
    operator(call, "t2", 1, client_id="worker")  # the client's own: somebody else
    await agent.passed(call, "t3")
    assert (hooks.restored, [read.revision for read in store.reads]) == ([1], [1])


async def test_what_is_older_than_its_own_restore_is_ignored(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    store.now = 500
    await agent.restore(revision=3)
    operator(call, "t1", 1, seconds=499)
    operator(call, "t2", 1, seconds=500)
    await agent.passed(call, "t3")
    assert (hooks.restored, agent.state.messages) == ([], ["1", "2", "3"])
    operator(call, "t4", 2, seconds=501)
    await agent.passed(call, "t5")
    assert hooks.restored == [2]


async def test_the_order_of_the_stream_counts_more_than_the_clocks(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    store.now = 500
    await agent.restore(revision=3)
    own = store.restores[0].request_id
    operator(call, "t1", 3, seconds=500, client_id=agent.client_id, request_id=own)
    operator(call, "t2", 2, seconds=400)  # committed later, by a server whose clock is late
    operator(call, "t3", 1, seconds=300)
    await agent.passed(call, "t4")
    assert (hooks.restored, agent.state.messages) == ([2, 1], ["1"])


async def test_what_a_later_stream_brings_is_newer(
    server: ScriptedServer, agent: Observed, store: Store, hooks: Hooks
) -> None:
    store.now = 500
    await agent.restore(revision=3)
    following = asyncio.create_task(agent.follow())
    call = await server.next_watch()
    call.created()
    operator(call, "t1", 1, seconds=400)  # by a server whose clock is late
    await agent.passed(call, "t2")
    assert hooks.restored == [1]
    following.cancel()
    await asyncio.wait({following})


async def test_following_again_from_an_older_token_applies_nothing_twice(
    server: ScriptedServer, agent: Observed, store: Store, hooks: Hooks
) -> None:
    for round_ in range(2):
        following = asyncio.create_task(agent.follow(resume_token=b"old"))
        call = await server.next_watch()
        assert call.request.resume_token == b"old"
        call.created("old")
        operator(call, "t1", 1, seconds=10)
        operator(call, "t2", 2, seconds=20)
        if round_:
            operator(call, "t3", 3, seconds=15)  # after t2 in the log
        await agent.passed(call, f"u{round_}")
        following.cancel()
        await asyncio.wait({following})
    assert hooks.restored == [1, 2, 3]


async def test_so_it_does_whatever_the_clocks_say(
    server: ScriptedServer, agent: Observed, store: Store, hooks: Hooks
) -> None:
    for round_ in range(2):
        following = asyncio.create_task(agent.follow(resume_token=b"old"))
        call = await server.next_watch()
        call.created("old")
        operator(call, "t1", 1, seconds=30)  # by a server whose clock is early
        operator(call, "t2", 2, seconds=20)
        await agent.passed(call, f"u{round_}")
        following.cancel()
        await asyncio.wait({following})
    assert hooks.restored == [1, 2]


def test_the_newest_events_that_were_applied_are_known_again() -> None:
    last = LastApplied()
    events = [pb.SessionEvent(event_id=str(n), create_time=Timestamp(seconds=9000 - n)) for n in range(1025)]
    for event in events:
        last.applied(event)
    last.begin_stream(from_now=False)
    assert all(last.is_older(event) for event in events[1:])
    assert len(last._known) == 1024
    last.loaded()
    assert not any(last.is_older(event) for event in events)


async def test_one_that_loads_applies_all_that_comes_in_the_stream(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    store.now = 500
    await agent.restore(revision=1)
    await agent.load()
    assert (len(store.restores), agent.state.messages, agent.revision) == (1, ["1", "2", "3"], 3)
    operator(call, "t1", 2, seconds=29)  # by a server whose clock is late: revision 3 was saved at 30
    operator(call, "t2", 1, seconds=28)
    await agent.passed(call, "t3")
    assert hooks.restored == [2, 1]


async def test_one_that_goes_on_from_a_token_applies_what_came_after_it(
    server: ScriptedServer, agent: Observed, store: Store, hooks: Hooks
) -> None:
    await agent.load()
    following = asyncio.create_task(agent.follow(resume_token=b"old"))
    call = await server.next_watch()
    call.created("old")
    operator(call, "t1", 2, seconds=30)  # its call began before revision 3 was saved
    await agent.passed(call, "t2")
    assert (hooks.restored, agent.state.messages) == ([2], ["1", "2"])
    following.cancel()
    await asyncio.wait({following})


async def test_a_restore_comes_after_the_save_that_is_under_way(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    arrived, may_save = asyncio.Event(), asyncio.Event()

    async def hold(request: Any) -> None:
        if isinstance(request, messages.SaveSessionRequest):
            arrived.set()
            await may_save.wait()

    await agent.restore(revision=3)
    store.before = hold
    agent.state.messages.append("under way")
    first = asyncio.create_task(agent.save())
    await asyncio.wait_for(arrived.wait(), 5)
    operator(call, "t1", 1)
    await asyncio.wait_for(agent.taken.wait(), 5)
    agent.state.messages.append("lost by the restore")
    second = asyncio.create_task(agent.save())
    await asyncio.sleep(0)
    assert store.reads == []
    may_save.set()
    await asyncio.gather(first, second)
    assert agent.state.messages == ["1"]
    one, two = store.saves
    assert (one.delta.base_revision, texts(one)) == (3, ["under way"])
    assert (two.delta.base_revision, texts(two), two.delta.HasField("truncate_to")) == (1, [], False)
    assert [message.text for message in store.states["s", 5].message_history] == ["1"]


async def test_a_restore_of_its_own_while_an_older_one_waits_wins(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    arrived, may_restore = asyncio.Event(), asyncio.Event()

    async def hold(request: Any) -> None:
        if isinstance(request, messages.RestoreSessionRequest):
            arrived.set()
            await may_restore.wait()

    store.before, store.now = hold, 500
    restoring = asyncio.create_task(agent.restore(revision=3))
    await asyncio.wait_for(arrived.wait(), 5)
    operator(call, "t1", 1, seconds=400)
    await asyncio.wait_for(agent.taken.wait(), 5)
    may_restore.set()
    await restoring
    await agent.passed(call, "t2")
    assert (hooks.restored, store.reads, agent.state.messages) == ([], [], ["1", "2", "3"])


async def test_what_fails_for_the_moment_is_tried_again(
    client: SessionClient, agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    store.failures = [LATER] * 3
    operator(call, "t1", 2)
    await hooks.wait_for(lambda: hooks.restored == [2])
    assert (len(store.reads), hooks.failed) == (4, [])


async def test_also_for_longer_than_a_call_may_take(server: ScriptedServer, store: Store, hooks: Hooks) -> None:
    async with SessionClient(server.target, retry=FAST, timeout=0.1) as client:
        agent = LiveAgent(client, "a", "s", on_restore=hooks.on_restore)
        following = asyncio.create_task(agent.follow())
        call = await server.next_watch()
        call.created()
        silent = asyncio.Event()

        async def hang(request: Any) -> None:
            if len(store.reads) < 2:
                store.reads.append(request)
                silent.set()
                await asyncio.Event().wait()

        store.before = hang
        operator(call, "t1", 2)
        await hooks.wait_for(lambda: hooks.restored == [2])
        assert silent.is_set()
        following.cancel()
        await asyncio.wait({following})


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (GONE, SessionNotFound),
        (Failure(StatusCode.NOT_FOUND, "gone", info("REVISION_NOT_FOUND")), RevisionNotFound),
        (DAMAGED, CorruptData),
        (None, MalformedPayload),
    ],
)
async def test_what_cannot_be_followed_is_told_and_following_goes_on(
    agent: Observed,
    store: Store,
    call: WatchCall,
    hooks: Hooks,
    caplog: pytest.LogCaptureFixture,
    failure: Failure | None,
    kind: type[Exception],
) -> None:
    before = agent.state
    if failure is None:
        broken = pb.Message(payload=pb.Payload(content_type="application/json", data=b"{secret"))
        store.states["s", 1] = pb.AgentState(message_history=[broken])
    else:
        store.failures = [failure]
    with caplog.at_level(logging.ERROR):
        operator(call, "t1", 1)
        await hooks.wait_for(lambda: len(hooks.failed) == 1)
    assert isinstance(hooks.failed[0], kind)
    assert agent.state is before
    (record,) = caplog.records
    assert "agents/a/sessions/s: revision 1" in record.getMessage()
    assert "secret" not in record.getMessage()
    operator(call, "t2", 2)
    await hooks.wait_for(lambda: hooks.restored == [2])
    assert agent.state.messages == ["1", "2"]


async def test_a_hook_that_raises_undoes_nothing(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(agent: LiveAgent, event: pb.SessionEvent) -> None:
        raise LookupError("in the hook")

    agent.on_restore = fail
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    assert agent.state.messages == ["1"]
    assert "in the hook" in caplog.text
    agent.on_restore = hooks.on_restore
    operator(call, "t3", 2)
    await hooks.wait_for(lambda: hooks.restored == [2])


@pytest.mark.parametrize("failing", [False, True])
async def test_a_hook_whose_own_task_was_cancelled_ends_nothing(
    agent: Observed, store: Store, call: WatchCall, hooks: Hooks, caplog: pytest.LogCaptureFixture, failing: bool
) -> None:
    async def fail(*arguments: object) -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task

    agent.on_restore = agent.on_failure = fail
    store.failures = [GONE] if failing else []
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    assert "a hook of the agent a failed" in caplog.text
    agent.on_restore = hooks.on_restore
    operator(call, "t3", 2)
    await hooks.wait_for(lambda: hooks.restored == [2])


async def test_following_can_be_cancelled_in_a_hook(
    server: ScriptedServer, agent: Observed, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    called = asyncio.Event()

    async def hang(agent: LiveAgent, event: pb.SessionEvent) -> None:
        called.set()
        await asyncio.Event().wait()

    agent.on_restore = hang
    following = asyncio.create_task(agent.follow())
    call = await server.next_watch()
    call.created()
    operator(call, "t1", 1)
    await asyncio.wait_for(called.wait(), 5)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(following, 5)
    assert not caplog.records


async def test_a_hook_may_save(agent: Observed, store: Store, call: WatchCall) -> None:
    done = asyncio.Event()

    async def save(agent: LiveAgent, event: pb.SessionEvent) -> None:
        agent.state.messages.append("told")
        await agent.save()
        done.set()

    agent.on_restore = save
    operator(call, "t1", 1)
    await asyncio.wait_for(done.wait(), 5)
    assert (store.saves[0].delta.base_revision, texts(store.saves[0])) == (1, ["told"])


async def test_restoring_another_session_changes_to_it(
    server: ScriptedServer, agent: Observed, store: Store, call: WatchCall, hooks: Hooks
) -> None:
    store.states["other", 1] = pb.AgentState(message_history=[pb.Message(text="other")])
    call.bookmark("t1")
    await agent.passed(call, "t2")
    await agent.restore("other")
    again = await server.next_watch()
    assert (again.request.session_name, again.request.resume_token) == ("other", b"t2")
    again.created("t2")
    assert (agent.session_name, agent.state.messages) == ("other", ["other"])
    await agent.save()
    assert store.saves[0].session_name == "other"
    operator(again, "t3", 2)  # of the session before
    operator(again, "t4", 1, session_name="other")
    await agent.passed(again, "t5")
    assert hooks.restored == [1]
    assert store.reads[-1].session_name == "other"


async def test_what_ends_a_watch_ends_following(server: ScriptedServer, agent: LiveAgent) -> None:
    following = asyncio.create_task(agent.follow(resume_token=b"old"))
    call = await server.next_watch()
    with pytest.raises(RuntimeError, match="already"):
        await agent.follow()
    call.end(expired("AAEC"))
    with pytest.raises(CursorExpired):
        await asyncio.wait_for(following, 5)
    following = asyncio.create_task(agent.follow())
    (await server.next_watch()).created()
    await asyncio.wait_for(agent.following.wait(), 5)
    await agent._client.close()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(following, 5)


async def test_closing_the_client_ends_it_while_it_tries_again(
    client: SessionClient, server: ScriptedServer, agent: Observed, store: Store
) -> None:
    following = asyncio.create_task(agent.follow())
    call = await server.next_watch()
    call.created()
    arrived = asyncio.Event()

    async def fail(request: Any) -> None:
        arrived.set()

    store.before, store.failures = fail, [LATER] * 10_000
    operator(call, "t1", 1)
    await asyncio.wait_for(arrived.wait(), 5)
    await client.close()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(following, 5)


async def test_two_agents_of_a_client_have_names_of_their_own(client: SessionClient) -> None:
    one, two = LiveAgent(client, "a", "s"), LiveAgent(client, "a", "s")
    assert one.client_id != two.client_id
    assert one.client_id.startswith("worker/")
    assert LiveAgent(client, "a", "s", client_id="mine").client_id == "mine"
    async with SessionClient(client_id="x" * 255) as named:
        assert len(LiveAgent(named, "a", "s").client_id) == 255


async def test_lists_are_the_agents(server: ScriptedServer, agent: LiveAgent) -> None:
    server.script = [messages.ListSessionsResponse(sessions=[pb.Session(session_name="1")])]
    assert [session.session_name async for session in agent.list_sessions(name_prefix="1")] == ["1"]
    assert (server.requests[0].agent_id, server.requests[0].name_prefix) == ("a", "1")


async def test_an_agent_begins_empty(client: SessionClient) -> None:
    agent = LiveAgent(client, "a", "new")
    assert (agent.state, agent.revision) == (State(), 0)
    agent.state = State(messages=["hi"], auth_context=AuthContext("key"))
    assert (await agent.save()).revision.revision == 1
