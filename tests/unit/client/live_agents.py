"""A live agent on a scripted server: a store in memory, hooks that remember, somebody else who restores."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from agent_sessions import (
    AgentSessionsError,
    LiveAgent,
    SessionClient,
    State,
)
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.scripted_server import Context, Failure, ScriptedServer, WatchCall, info

GONE = Failure(StatusCode.NOT_FOUND, "gone", info("SESSION_NOT_FOUND"))
DAMAGED = Failure(StatusCode.DATA_LOSS, "damaged", info("CORRUPT_DATA", revision="1"))
LATER = Failure(StatusCode.UNAVAILABLE, "later", info("DATABASE_UNAVAILABLE"))


@dataclass
class Store:
    """Sessions in memory, and what was asked of them."""

    states: dict[tuple[str, int], pb.AgentState] = field(default_factory=dict)
    saves: list[messages.SaveSessionRequest] = field(default_factory=list)
    restores: list[messages.RestoreSessionRequest] = field(default_factory=list)
    reads: list[messages.GetRevisionRequest] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Of the next reads and restores."""
    before: Callable[[Any], Awaitable[None]] | None = None
    """Called before each answer."""
    now: int = 100
    """The time of the next restore."""

    async def answer(self, request: Any, context: Context) -> Message:
        if self.before is not None:
            await self.before(request)
        if isinstance(request, messages.SaveSessionRequest):
            return self._save(request)
        (self.restores if isinstance(request, messages.RestoreSessionRequest) else self.reads).append(request)
        if self.failures:
            raise self.failures.pop(0)
        number = request.revision or self.head(request.session_name)
        kind = type(request).__name__.replace("Request", "Response")
        answer: Any = getattr(messages, kind)(state=self.states[request.session_name, number])
        answer.revision.revision, answer.revision.etag = number, f"etag-{number}"
        answer.revision.create_time.seconds = 10 * number
        answer.session.head_revision = self.head(request.session_name)
        answer.session.last_restore_time.seconds = self.now
        return answer  # type: ignore[no-any-return]  # by name

    def _save(self, request: messages.SaveSessionRequest) -> Message:
        self.saves.append(request)
        state = pb.AgentState()
        if request.HasField("delta"):
            delta = request.delta
            if delta.base_revision:
                state.CopyFrom(self.states[request.session_name, delta.base_revision])
            if delta.HasField("truncate_to"):
                del state.message_history[delta.truncate_to :]
            state.message_history.extend(delta.appended_messages)
            state.llm_provider = delta.llm_provider
            state.auth_context.CopyFrom(delta.auth_context)
        else:
            state.CopyFrom(request.snapshot)
        number = self.head(request.session_name) + 1
        self.states[request.session_name, number] = state
        answer = messages.SaveSessionResponse()
        answer.revision.revision = answer.session.head_revision = number
        answer.revision.etag = f"etag-{number}"
        return answer

    def head(self, session_name: str) -> int:
        return max((number for name, number in self.states if name == session_name), default=0)


@dataclass
class Hooks:
    """What an agent was told."""

    restored: list[int] = field(default_factory=list)
    failed: list[AgentSessionsError] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def on_restore(self, agent: LiveAgent, event: pb.SessionEvent) -> None:
        self.restored.append(event.revision)
        self.changed.set()

    def on_failure(self, agent: LiveAgent, event: pb.SessionEvent, error: AgentSessionsError) -> None:
        self.failed.append(error)
        self.changed.set()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Observed(LiveAgent):
    """Tells when it has taken an event, and when it is done with one."""

    taken: asyncio.Event
    tokens: list[bytes]
    changed: asyncio.Event

    async def _follow(self, event: pb.SessionEvent) -> None:
        self.taken.set()
        await super()._follow(event)

    async def _done_with(self, token: bytes) -> None:
        await super()._done_with(token)
        self.tokens.append(token)
        self.changed.set()

    async def passed(self, call: WatchCall, token: str) -> None:
        """Wait until it is done with all that was sent; the token is a new one."""
        call.bookmark(token)
        async with asyncio.timeout(5):
            while token.encode() not in self.tokens:
                self.changed.clear()
                await self.changed.wait()


class Provider:
    """Of this process; never stored."""


@pytest.fixture
def store(server: ScriptedServer) -> Store:
    store = Store()
    server.script = [store.answer]
    for number in (1, 2, 3):
        stored = pb.AgentState(agent_id="a", llm_provider="stored", auth_context=pb.AuthContext(type="stored"))
        stored.message_history.extend(pb.Message(text=str(n)) for n in range(1, number + 1))
        store.states["s", number] = stored
    return store


@pytest.fixture
async def client(server: ScriptedServer, store: Store) -> AsyncIterator[SessionClient]:
    async with SessionClient(server.target, retry=FAST, timeout=10, client_id="worker") as client:
        client.codec.register(Provider)
        yield client


@pytest.fixture
def hooks() -> Hooks:
    return Hooks()


@pytest.fixture
def agent(client: SessionClient, hooks: Hooks) -> Observed:
    state = State(messages=["mine"], llm_provider=Provider, auth_context={"type": "key", "token": "secret"})
    agent = Observed(client, "a", "s", state, on_restore=hooks.on_restore, on_failure=hooks.on_failure)
    agent.taken, agent.tokens, agent.changed = asyncio.Event(), [], asyncio.Event()
    return agent


@pytest.fixture
async def call(server: ScriptedServer, agent: Observed) -> AsyncIterator[WatchCall]:
    """Have the agent follow; return what its events come by."""
    following = asyncio.create_task(agent.follow())
    call = await server.next_watch()
    call.created()
    await asyncio.wait_for(agent.following.wait(), 5)
    yield call
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert not agent.following.is_set()
    await asyncio.wait_for(call.gone.wait(), 5)


def operator(call: WatchCall, token: str, revision: int, seconds: int = 1000, **fields: Any) -> None:
    """Send the event of an operator's restore."""
    names = {"agent_id": "a", "session_name": "s", "revision": revision, "create_time": Timestamp(seconds=seconds)}
    call.event(token, **(names | fields))


def texts(request: messages.SaveSessionRequest) -> list[str]:
    return [message.text for message in request.delta.appended_messages]
