"""Sessions of the client library on a real server: what is read back is what was saved, whatever the way."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from agent_sessions import (
    AgentState,
    CheckpointIdExists,
    DeadlineExceeded,
    InvalidField,
    LoopState,
    MessageTooLarge,
    ResourceExhausted,
    RevisionMismatch,
    SessionClient,
    SessionDeleted,
    State,
    SyncSessionClient,
    Unavailable,
)
from agent_sessions.saver import Saver
from agent_sessions.v1 import session_service_pb2 as messages
from agent_sessions.v1.session_pb2 import LOOP_STATE_IDLE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.servers import ServerProcess


class Recorder:
    """Notes what a client's saves send."""

    def __init__(self, client: SessionClient, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[messages.SaveSessionRequest] = []
        save = Saver.save

        async def recorded(saver: Saver, data: bytes, request_id: str, timeout: float | None) -> Any:
            self.requests.append(messages.SaveSessionRequest.FromString(data))
            return await save(saver, data, request_id, timeout)

        monkeypatch.setattr(Saver, "save", recorded)

    @property
    def kinds(self) -> list[str | None]:
        return [request.WhichOneof("content") for request in self.requests]


@pytest.fixture(params=[True, False], ids=["stream", "unary"])
async def client(shared_server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[SessionClient]:
    async with SessionClient(shared_server.address, stream=request.param) as client:
        yield client


@pytest.fixture
def recorder(client: SessionClient, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    return Recorder(client, monkeypatch)


async def stored(client: SessionClient, agent_id: str, name: str = "s", **which: Any) -> State:
    return (await client.get_revision(agent_id, name, **which)).decode()


async def test_appends_are_read_back(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s", user_id="u")
    await session.append(["one", {"two": 2}], set_values={"v": 1, "w": b"\0"}, llm_provider="p")
    await session.append(["three"], loop_state=LoopState.THINKING, remove_values=["v"], auth_context={"type": "t"})
    saved = await session.append(set_values={"w": [1]}, checkpoint_id="c", metadata={"k": "v"}, labels={"l": "m"})
    assert (saved.revision.revision, saved.revision.parent_revision, saved.revision.message_count) == (3, 2, 3)
    assert (saved.session.user_id, dict(saved.session.labels)) == ("u", {"l": "m"})
    assert dict(saved.revision.metadata) == {"k": "v"}
    found = await stored(client, agent_id, checkpoint_id="c")
    assert (found.messages, found.values) == (["one", {"two": 2}, "three"], {"w": [1]})
    assert (found.loop_state, found.llm_provider, found.auth_context.type) == (LoopState.THINKING, "p", "t")
    assert (await stored(client, agent_id, revision=1)).values == {"v": 1, "w": b"\0"}


async def test_an_append_does_not_begin_a_session_that_exists(client: SessionClient, agent_id: str) -> None:
    await client.session(agent_id, "s").append(["one"])
    other = client.session(agent_id, "s")
    with pytest.raises(RevisionMismatch) as caught:
        await other.append(["two"])
    assert caught.value.current_revision == 1
    await other.restore()
    await other.append(["two"])
    assert (await stored(client, agent_id)).messages == ["one", "two"]


@contextmanager
def saves_end(ending: type[BaseException], monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> Iterator[None]:
    """Let saves raise, though they may have been stored."""
    save = Saver.save

    async def unheard(*given: Any) -> Any:
        if stored:
            await save(*given)
        raise ending("nobody heard of it")

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", unheard)
        with pytest.raises(ending):
            yield


ENDINGS = [DeadlineExceeded, Unavailable, ResourceExhausted, asyncio.CancelledError]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [1, 3 << 20], ids=["small", "large"])
async def test_a_first_append_that_was_stored_though_it_raised(
    client: SessionClient, monkeypatch: pytest.MonkeyPatch, agent_id: str, ending: type[BaseException], size: int
) -> None:
    """Whatever its last attempt came to: an earlier one may have stored it."""
    session = client.session(agent_id, "s")
    with saves_end(ending, monkeypatch, stored=True):
        await session.append(["one"])
    two = "2" * size
    await session.append([two, two])
    await session.append(["three"])
    assert (await stored(client, agent_id)).messages == [two, two, "three"]
    assert (await stored(client, agent_id, revision=1)).messages == ["one"]
    assert session.revision == 3


@pytest.mark.parametrize("way", ["restore", "save", "append"])
async def test_first_appends_are_forgotten_once_the_session_goes_on(
    client: SessionClient, monkeypatch: pytest.MonkeyPatch, agent_id: str, way: str
) -> None:
    session = client.session(agent_id, "s")
    with saves_end(DeadlineExceeded, monkeypatch, stored=True):
        await session.append(["one"])
    # Larger than a request: it is refused before it is sent, and changes nothing of what is remembered.
    with pytest.raises(MessageTooLarge):
        await session.append(["x" * (5 << 20)])
    assert len(session._first._raised) == 1
    match way:
        case "restore":
            await session.restore()
        case "save":
            await session.save(State(messages=["two"]))
        case _:
            await session.append(["two"])
    assert session._first._raised == []


async def test_after_first_appends_that_were_refused(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s")
    for _ in range(2):
        with pytest.raises(InvalidField):
            await session.append(["one"], labels={"": "no"})
    await client.session(agent_id, "s").append(["another's"])
    with pytest.raises(RevisionMismatch):
        await session.append(["one"])
    assert (await stored(client, agent_id)).messages == ["another's"]


async def test_a_first_append_that_was_lost_does_not_take_anothers_session(
    client: SessionClient, monkeypatch: pytest.MonkeyPatch, agent_id: str
) -> None:
    session = client.session(agent_id, "s")
    with saves_end(DeadlineExceeded, monkeypatch, stored=False):
        await session.append(["mine"])
    await client.session(agent_id, "s").append(["another's"])
    with pytest.raises(RevisionMismatch):
        await session.append(["mine"])
    found = await client.get_revision(agent_id, "s")
    assert (found.session.head_revision, found.decode().messages) == (1, ["another's"])


async def test_a_restarted_worker_goes_on_with_deltas(client: SessionClient, recorder: Recorder, agent_id: str) -> None:
    state = State(messages=["one", {"b": 1, "a": [1.5, None]}], values={"v": {"x": 1}}, llm_provider="p")
    await client.session(agent_id, "s").save(state)
    again = client.session(agent_id, "s")
    restored = (await again.restore()).decode()
    await again.save(restored)
    await again.append(["three"])
    restored.messages.extend(["three", "four"])
    await again.save(restored)
    assert recorder.kinds == ["snapshot", "delta", "delta", "delta"]
    assert [len(request.delta.appended_messages) for request in recorder.requests] == [0, 0, 1, 1]
    assert not any(request.delta.HasField("truncate_to") for request in recorder.requests)
    found = await stored(client, agent_id)
    assert found.messages == [*state.messages, "three", "four"]
    assert (found.values, found.llm_provider) == (state.values, "p")


async def test_a_session_that_was_purged_and_made_again(
    client: SessionClient, recorder: Recorder, agent_id: str
) -> None:
    session = client.session(agent_id, "s")
    for text in ("one", "two", "three"):
        await session.append([text], set_values={"v": text})
    await client.delete(agent_id, "s", purge=True)
    other = client.session(agent_id, "s")
    for text in ("a", "b", "c"):
        await other.append([text])
    saved = await session.append(["four"])
    assert saved.revision.revision == 4
    found = await stored(client, agent_id)
    assert (found.messages, found.values) == (["one", "two", "three", "four"], {"v": "three"})
    assert recorder.kinds[-2:] == ["delta", "snapshot"]
    assert (await stored(client, agent_id, revision=3)).messages == ["a", "b", "c"]


async def test_a_session_that_was_purged_comes_back(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s")
    await session.append(["one"])
    await client.delete(agent_id, "s", purge=True)
    assert (await session.append(["two"])).revision.revision == 1
    assert (await session.append(["three"])).revision.revision == 2
    assert (await stored(client, agent_id)).messages == ["one", "two", "three"]


async def test_two_writers_lose_nothing(client: SessionClient, agent_id: str) -> None:
    first, second = client.session(agent_id, "s"), client.session(agent_id, "s")
    await first.append(["common"])
    await second.restore()
    await first.append(["first"])
    saved = await second.append(["second"])
    assert (saved.revision.revision, saved.revision.parent_revision) == (3, 1)
    assert (await stored(client, agent_id, revision=2)).messages == ["common", "first"]
    assert (await stored(client, agent_id)).messages == ["common", "second"]
    await first.append(["first again"])
    assert (await stored(client, agent_id)).messages == ["common", "first", "first again"]


async def test_exclusive_writers_are_told(client: SessionClient, agent_id: str) -> None:
    first = client.session(agent_id, "s", exclusive=True)
    second = client.session(agent_id, "s", exclusive=True)
    await first.append(["common"])
    for attempt in (second.append(["x"]), second.save(State(messages=["x"]))):
        with pytest.raises(RevisionMismatch):
            await attempt
    await second.restore()
    await second.append(["second"])
    with pytest.raises(RevisionMismatch) as caught:
        await first.append(["first"])
    assert caught.value.current_revision == 2
    await first.restore(revision=1)
    await first.append(["first"])
    assert (await stored(client, agent_id)).messages == ["common", "first"]
    assert (await stored(client, agent_id, revision=2)).messages == ["common", "second"]


async def test_an_exclusive_writer_leaves_another_session_of_the_name_alone(
    client: SessionClient, agent_id: str
) -> None:
    mine, other = client.session(agent_id, "s", exclusive=True), client.session(agent_id, "s")
    for text in ("mine", "mine again"):
        await mine.append([text])
    await client.delete(agent_id, "s", purge=True)
    for text in ("other", "other again"):
        await other.append([text])
    for attempt in (mine.append(["x"]), mine.save(State(messages=["x"]))):
        with pytest.raises(RevisionMismatch):
            await attempt
    assert (await stored(client, agent_id)).messages == ["other", "other again"]


async def test_going_on_from_an_older_revision(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s")
    for text in ("one", "two", "three"):
        await session.append([text])
    await session.load(revision=1)
    saved = await session.append(["other"])
    assert (saved.revision.revision, saved.revision.parent_revision) == (4, 1)
    assert (await stored(client, agent_id)).messages == ["one", "other"]


async def test_refusals_leave_the_session_usable(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s")
    await session.append(["one"], checkpoint_id="c")
    with pytest.raises(CheckpointIdExists):
        await session.append(["two"], checkpoint_id="c")
    await client.delete(agent_id, "s")
    with pytest.raises(SessionDeleted):
        await session.append(["three"])
    await client.undelete(agent_id, "s")
    await session.append(["four"])
    assert (await stored(client, agent_id)).messages == ["one", "four"]


async def test_calls_at_once_are_saved_in_their_order(client: SessionClient, agent_id: str) -> None:
    session = client.session(agent_id, "s")
    saved = await asyncio.gather(*(session.append([str(n)]) for n in range(30)))
    assert [s.revision.revision for s in saved] == [*range(1, 31)]
    assert (await stored(client, agent_id)).messages == [str(n) for n in range(30)]


def test_the_blocking_twin(shared_server: ServerProcess, agent_id: str) -> None:
    with SyncSessionClient(shared_server.address) as client:
        session = client.session(agent_id, "s", exclusive=True)
        session.append(["one"])
        session.save(State(messages=["one", "two"]))
        again = client.session(agent_id, "s")
        assert again.restore().decode().messages == ["one", "two"]
        assert again.load().decode().messages == ["one", "two"]
        again.append(["three"])
        with pytest.raises(RevisionMismatch):
            session.append(["late"])
        assert (again.agent_id, again.session_name, again.revision, again.message_count) == (agent_id, "s", 3, 3)


_TEXT = st.text(max_size=6)
_MESSAGE = st.dictionaries(
    _TEXT, st.one_of(st.integers(), st.none(), _TEXT, st.lists(st.booleans(), max_size=2)), max_size=3
)
_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "replace", "delete", "cut", "append", "swap", "nothing"]),
        st.integers(0, 99),
        _MESSAGE,
    ),
    max_size=4,
)
_VALUES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), max_size=3)


def edit(conversation: list[Any], kind: str, place: int, message: dict[str, Any]) -> None:
    """Change a conversation in place, as a program that keeps it would."""
    place %= len(conversation) + 1
    match kind:
        case "insert":
            conversation.insert(place, message)
        case "append":
            conversation.append(message)
        case "cut":
            del conversation[place:]
        case "replace" if place < len(conversation):
            conversation[place].update(message)
        case "delete" if place < len(conversation):
            del conversation[place]
        case "swap":
            conversation.reverse()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.booleans(), _EDITS, _VALUES, st.sampled_from(LoopState)), min_size=1, max_size=6))
def test_whatever_is_edited_each_save_reads_back_equal(shared_server: ServerProcess, steps: list[Any]) -> None:
    async def run() -> None:
        agent_id = f"agent-{uuid.uuid4().hex}"
        conversation: list[Any] = []
        expected: list[AgentState] = []
        async with SessionClient(shared_server.address) as client:
            session = client.session(agent_id, "s")
            for restart, edits, values, loop_state in steps:
                for kind, place, message in edits:
                    edit(conversation, kind, place, dict(message))
                state = State(messages=conversation, values=values, loop_state=loop_state)
                if restart and expected:
                    session = client.session(agent_id, "s")
                    await session.load()
                await session.save(state)
                expected.append(client.codec.encode(state))
            for number, state_then in enumerate(expected, 1):
                found = (await client.get_revision(agent_id, "s", revision=number)).agent_state
                assert found is not None
                assert canonical(found) == canonical(state_then)

    asyncio.run(run())


def canonical(state: AgentState) -> bytes:
    """Return a state's bytes, without what the service fills in."""
    copy = AgentState()
    copy.CopyFrom(state)
    copy.agent_id = ""
    copy.loop_state = copy.loop_state or LOOP_STATE_IDLE
    return copy.SerializeToString(deterministic=True)
