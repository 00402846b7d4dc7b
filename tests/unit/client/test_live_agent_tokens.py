"""A live agent's resume tokens: kept when what was restored is saved, and not before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from agent_sessions import AgentSessionsError, LiveAgent
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages

from tests.unit.client.live_agents import (
    GONE,
    Hooks,
    Observed,
    Store,
    agent,
    client,
    hooks,
    operator,
    store,
)
from tests.unit.client.scripted_server import ScriptedServer, WatchCall

__all__ = ["agent", "client", "hooks", "store"]  # fixtures


class Kept:
    """What was given to keep_token, and how many saves there were then."""

    def __init__(self, store: Store) -> None:
        self.tokens: list[tuple[bytes, int]] = []
        self.errors: list[BaseException] = []
        """Raised by the next calls."""
        self._store = store

    async def keep(self, token: bytes) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.tokens.append((token, len(self._store.saves)))


@pytest.fixture
def kept(store: Store) -> Kept:
    return Kept(store)


@pytest.fixture
async def call(server: ScriptedServer, agent: Observed, kept: Kept) -> AsyncIterator[WatchCall]:
    following = asyncio.create_task(agent.follow(keep_token=kept.keep))
    call = await server.next_watch()
    call.created("t0")
    await asyncio.wait_for(agent.following.wait(), 5)
    yield call
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


async def test_tokens_are_held_back_until_what_was_applied_is_saved(
    agent: Observed, call: WatchCall, kept: Kept, hooks: Hooks
) -> None:
    await agent.passed(call, "t1")
    operator(call, "t2", 1)
    operator(call, "t3", 2)
    await agent.passed(call, "t4")
    assert (hooks.restored, kept.tokens) == ([1, 2], [(b"t0", 0), (b"t1", 0)])
    await agent.save()
    assert kept.tokens[2:] == [(b"t4", 1)]
    await agent.save()
    await agent.passed(call, "t5")
    assert kept.tokens[3:] == [(b"t5", 2)]


async def test_so_they_are_after_a_restore_of_its_own(agent: Observed, call: WatchCall, kept: Kept) -> None:
    await agent.restore(revision=2)
    await agent.passed(call, "t1")
    assert kept.tokens == [(b"t0", 0)]
    await agent.save()
    assert kept.tokens[1:] == [(b"t1", 1)]


async def test_and_while_one_is_under_way(agent: Observed, store: Store, call: WatchCall, kept: Kept) -> None:
    async def event_comes_first(request: Any) -> None:
        if isinstance(request, messages.RestoreSessionRequest):
            operator(call, "t1", 2, client_id=agent.client_id, request_id=request.request_id)
            await agent.passed(call, "t2")

    store.before = event_comes_first
    await agent.restore(revision=2)
    assert kept.tokens == [(b"t0", 0)]
    await agent.save()
    assert kept.tokens[1:] == [(b"t2", 1)]


async def test_what_failed_to_be_restored_or_saved_changes_nothing(
    agent: Observed, store: Store, call: WatchCall, kept: Kept, hooks: Hooks
) -> None:
    store.failures = [GONE]
    with pytest.raises(AgentSessionsError):
        await agent.restore(revision=2)
    store.failures = [GONE]
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    assert (len(hooks.failed), kept.tokens[-1]) == (1, (b"t2", 0))
    operator(call, "t3", 1)
    await agent.passed(call, "t4")

    async def fail(request: Any) -> None:
        raise GONE

    store.before = fail
    with pytest.raises(AgentSessionsError):
        await agent.save()
    await agent.passed(call, "t5")
    assert kept.tokens[-1] == (b"t2", 0)
    store.before = None
    await agent.save()
    assert kept.tokens[-1] == (b"t5", 1)


async def test_a_restore_that_comes_after_the_save_holds_them_back_again(
    agent: Observed, call: WatchCall, kept: Kept
) -> None:
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    await agent.save()
    operator(call, "t3", 1)
    await agent.passed(call, "t4")
    assert kept.tokens == [(b"t0", 0), (b"t2", 1)]


async def test_a_hook_that_saves_has_its_token_kept(agent: Observed, call: WatchCall, kept: Kept) -> None:
    async def save(agent: LiveAgent, event: pb.SessionEvent) -> None:
        await agent.save()

    agent.on_restore = save
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    assert kept.tokens == [(b"t0", 0), (b"t1", 1), (b"t2", 1)]


async def test_keep_token_may_save(server: ScriptedServer, agent: Observed, store: Store) -> None:
    kept: list[bytes] = []

    async def keep(token: bytes) -> None:
        kept.append(token)
        await agent.save()

    following = asyncio.create_task(agent.follow(keep_token=keep))
    call = await server.next_watch()
    call.created("t0")
    await agent.passed(call, "t1")
    operator(call, "t2", 1)
    await agent.passed(call, "t3")
    await asyncio.wait_for(agent.save(), 5)
    assert (kept, len(store.saves)) == ([b"t0", b"t1", b"t3"], 4)
    following.cancel()
    await asyncio.wait({following})


@pytest.mark.parametrize("error", [OSError("disk full"), asyncio.CancelledError()])
async def test_a_token_that_cannot_be_kept_after_a_save_is_held_for_the_next_one(
    agent: Observed, call: WatchCall, kept: Kept, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    kept.errors = [error]
    assert (await agent.save()).revision.revision == 4
    assert kept.tokens == [(b"t0", 0)]
    assert "the agent a" in caplog.text
    await agent.save()
    assert kept.tokens == [(b"t0", 0), (b"t2", 2)]


async def test_a_token_that_cannot_be_kept_otherwise_ends_following(
    server: ScriptedServer, agent: Observed, kept: Kept
) -> None:
    kept.errors = [OSError("disk full")]
    following = asyncio.create_task(agent.follow(keep_token=kept.keep))
    (await server.next_watch()).created("t0")
    with pytest.raises(OSError, match="disk full"):
        await asyncio.wait_for(following, 5)


async def test_a_save_after_following_has_ended_keeps_it(server: ScriptedServer, agent: Observed, kept: Kept) -> None:
    following = asyncio.create_task(agent.follow(keep_token=kept.keep))
    call = await server.next_watch()
    call.created("t0")
    operator(call, "t1", 1)
    await agent.passed(call, "t2")
    following.cancel()
    await asyncio.wait({following})
    await agent.save()
    assert kept.tokens == [(b"t0", 0), (b"t2", 1)]


async def test_a_worker_that_goes_on_from_the_kept_token_applies_the_restore_again(
    server: ScriptedServer, agent: Observed, store: Store, hooks: Hooks, kept: Kept
) -> None:
    for round_ in range(2):
        token = kept.tokens[-1][0] if kept.tokens else b""
        await agent.load()  # the second time: as another worker, in the place of the first
        assert agent.state.messages == ["1", "2", "3"]
        following = asyncio.create_task(agent.follow(resume_token=token, keep_token=kept.keep))
        call = await server.next_watch()
        assert call.request.resume_token == (b"t0" if round_ else b"")
        call.created("t0")
        operator(call, "t1", 2)
        await agent.passed(call, f"u{round_}")
        following.cancel()
        await asyncio.wait({following})
        assert (len(hooks.restored), agent.state.messages) == (round_ + 1, ["1", "2"])
