"""What was saved comes back to the byte: every field, every revision, after everything."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_pb2 import AgentState, LoopState, Message, Payload
from grpc import StatusCode

from tests.fixtures.agents import Agent, exact, size_of
from tests.fixtures.conversations import END_OF_TIME, conversation, every_field, numbered
from tests.fixtures.refusals import refusal
from tests.fixtures.servers import ServerFactory
from tests.fixtures.shared_server import Database, Wire

# ---- what is saved comes back


def test_every_field_comes_back_to_the_byte(agent: Agent) -> None:
    state = every_field(agent.id)
    wanted = agent.expected(state)
    saved = agent.save("s", state)
    restored = agent.restore("s")
    assert exact(restored.state) == wanted
    assert exact(agent.revision("s", view=pb.REVISION_VIEW_FULL).state) == wanted
    assert restored.revision == saved.revision
    assert saved.revision.message_count == saved.session.message_count == len(restored.state.message_history)
    assert saved.revision.size_bytes == saved.session.size_bytes == size_of(restored.state)


@pytest.mark.parametrize("number", LoopState.values())
def test_every_loop_state_comes_back(agent: Agent, number: LoopState) -> None:
    agent.save("s", AgentState(loop_state=number))
    assert agent.state("s").loop_state == (number or LoopState.LOOP_STATE_IDLE)


def test_a_state_without_messages_comes_back(agent: Agent) -> None:
    saved = agent.save("s", AgentState())
    assert (saved.revision.message_count, saved.revision.revision) == (0, 1)
    assert agent.state("s") == AgentState(agent_id=agent.id, loop_state=LoopState.LOOP_STATE_IDLE)
    assert not agent.state("s").HasField("created_at")
    assert not agent.state("s").HasField("auth_context")


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(numbered(2000), id="2000 messages"),
        pytest.param(conversation("before", "x" * 3 * 1024 * 1024, "after"), id="one message of 3 MiB"),
        pytest.param(AgentState(message_history=[Message()] * 5), id="five empty messages"),
        pytest.param(AgentState(created_at=END_OF_TIME), id="the last nanosecond of 9999"),
    ],
)
def test_large_and_odd_states_come_back(agent: Agent, state: AgentState) -> None:
    agent.save("s", state)
    assert exact(agent.state("s")) == agent.expected(state)


def test_fields_of_newer_callers_are_kept(agent: Agent) -> None:
    from_the_future = b"\xa2\x06\x05hello"  # field 100: "hello"
    message = Message.FromString(Message(text="m").SerializeToString() + from_the_future)
    value = Payload.FromString(Payload(data=b"v").SerializeToString() + from_the_future)
    state = AgentState.FromString(AgentState(message_history=[message]).SerializeToString() + from_the_future)
    state.values["v"].CopyFrom(value)
    agent.save("s", state)
    restored = agent.state("s")
    assert from_the_future in restored.message_history[0].SerializeToString()
    assert from_the_future in restored.values["v"].SerializeToString()
    assert exact(restored) == agent.expected(state)


def test_what_was_saved_survives_kill_and_start(server: ServerFactory, data_dir: Path, agent_id: str) -> None:
    first = server(data_dir=data_dir)
    wire = Wire(first.address)
    agent = Agent(wire.stub, agent_id)
    states = [every_field(agent_id), numbered(100), conversation("short")]
    for state in states:
        agent.save("s", state, labels=pb.Labels(entries={"k": "v"}))
    before = agent.get("s")
    wire.channel.close()
    first.kill()

    wire = Wire(server(data_dir=data_dir).address)
    agent = Agent(wire.stub, agent_id)
    assert agent.get("s") == before
    for number, state in enumerate(states, 1):
        assert exact(agent.state("s", revision=number)) == agent.expected(state)
    assert agent.save("s", numbered(1)).revision.revision == 4
    wire.channel.close()


# ---- history


def revisions_of_a_life() -> Iterator[AgentState]:
    """Thirty states of one conversation that grows, is cut short, goes elsewhere and grows again."""
    texts: list[str] = []
    for number in range(30):
        match number % 10:
            case 4:
                texts = texts[: len(texts) // 2]  # cut short
            case 6:
                texts = [*texts[:2], f"another way {number}"]
            case 8:
                texts = []
            case 9:
                pass  # the same again
            case _:
                texts = [*texts, *(f"{number}.{n}" for n in range(3))]
        yield conversation(*texts)


def test_every_revision_can_be_restored(agent: Agent) -> None:
    states = list(revisions_of_a_life())
    for number, state in enumerate(states, 1):
        saved = agent.save("s", state, checkpoint_id=f"c{number}", metadata={"n": str(number)})
        assert (saved.revision.revision, saved.revision.parent_revision) == (number, number - 1)
    for number, state in enumerate(states, 1):
        wanted = agent.expected(state)
        assert exact(agent.state("s", revision=number)) == wanted
        assert exact(agent.state("s", checkpoint_id=f"c{number}")) == wanted
        found = agent.revision("s", revision=number, view=pb.REVISION_VIEW_FULL)
        assert exact(found.state) == wanted
        assert (found.revision.checkpoint_id, dict(found.revision.metadata)) == (f"c{number}", {"n": str(number)})
    assert agent.get("s").head_revision == 30
    targets: list[dict[str, Any]] = [{"revision": 31}, {"checkpoint_id": "c31"}]
    for target in targets:
        unknown = refusal(agent.restore, "s", **target)
        assert (unknown.code, unknown.reason) == (StatusCode.NOT_FOUND, "REVISION_NOT_FOUND")


def test_a_limit_gives_the_newest_messages_of_any_branch(agent: Agent) -> None:
    trunk = [f"trunk {n}" for n in range(6)]
    histories = [trunk[:3], trunk, [*trunk[:4], "b4", "b5"], [*trunk[:4], "b4", "c5", "c6"], trunk[:5], [*trunk, "t6"]]
    for texts in histories:
        agent.save("s", conversation(*texts))
    for number, texts in enumerate(histories, 1):
        for limit in range(1, len(texts) + 2):
            restored = agent.restore("s", revision=number, message_limit=limit)
            assert [m.text for m in restored.state.message_history] == texts[-limit:]
            assert restored.revision.message_count == len(texts)
            read = agent.revision("s", revision=number, message_limit=limit, view=pb.REVISION_VIEW_FULL)
            assert read.state == restored.state


def test_self_contained_shares_nothing_and_changes_nothing(agent: Agent, shared_database: Database) -> None:
    agent.save("s", numbered(5))
    agent.save("s", numbered(6), self_contained=True)
    assert exact(agent.state("s")) == agent.expected(numbered(6))
    assert exact(agent.state("s", revision=1)) == agent.expected(numbered(5))
    transcripts = shared_database.fetch(
        "SELECT r.revision, sum(g.message_count) AS stored, bool_or(t.parent_transcript_id IS NOT NULL) AS child"
        " FROM sessions s JOIN revisions r USING (bucket, session_id) JOIN transcripts t USING (bucket, transcript_id)"
        " JOIN transcript_segments g USING (bucket, transcript_id) WHERE s.agent_id = $1 GROUP BY 1 ORDER BY 1",
        agent.id,
    )
    assert [tuple(row) for row in transcripts] == [(1, 5, False), (2, 6, False)]


def test_what_a_snapshot_shares_is_stored_once(agent: Agent, shared_database: Database) -> None:
    for count in (5, 6, 6, 9, 3):
        agent.save("s", numbered(count))
    stored = shared_database.fetch(
        "SELECT sum(g.message_count) FROM transcript_segments g WHERE (bucket, transcript_id) IN (SELECT bucket,"
        " transcript_id FROM revisions JOIN sessions USING (bucket, session_id) WHERE agent_id = $1)",
        agent.id,
    )
    assert stored[0][0] == 9


def test_etags_are_stable_and_different(agent: Agent, other: Agent) -> None:
    saves = [agent.save("s", conversation(*"ab"[:n])) for n in (1, 2, 1)]
    saves += [agent.save("t", conversation("a")), other.save("s", conversation("a"))]
    etags = [saved.revision.etag for saved in saves]
    assert len(set(etags)) == 5
    assert all(etags)
    for number in (1, 2, 3):
        assert agent.revision("s", revision=number).revision.etag == etags[number - 1]
        assert agent.restore("s", revision=number, message_limit=1).revision.etag == etags[number - 1]
