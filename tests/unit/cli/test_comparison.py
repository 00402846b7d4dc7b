"""The replay's comparison finds each kind of difference."""

from collections.abc import Callable

import pytest
from agent_sessions.cli.replay.comparison import mismatches
from agent_sessions.cli.replay.corpus import Conversation
from agent_sessions.results import RestoredRevision
from agent_sessions.state import State, StateCodec
from agent_sessions.v1.session_pb2 import AgentState, Message, Payload, Revision, Role, Session

MESSAGES: list[dict[str, object]] = [{"n": 1}, {"n": 2.5, "text": "é"}]
CODEC = StateCodec()


def saved() -> AgentState:
    return CODEC.encode(State(agent_id="a", messages=list(MESSAGES)))


def problems(restored: AgentState, source: list[dict[str, object]] | None = None, head: int = 2) -> list[str]:
    answer = RestoredRevision(Session(head_revision=head), Revision(revision=head, message_count=head), restored, CODEC)
    conversation = Conversation("a", "s", MESSAGES if source is None else source)
    found = list(mismatches(saved(), conversation, answer))
    assert all((each.agent_id, each.session_name) == ("a", "s") for each in found)
    return [each.problem for each in found]


def test_equal_is_no_mismatch() -> None:
    assert problems(saved()) == []


def spaces(state: AgentState) -> None:
    data = state.message_history[1].payload.data
    state.message_history[1].payload.data = data.replace(b":", b": ")


def role(state: AgentState) -> None:
    state.message_history[0].role = Role.ROLE_USER


def content_type(state: AgentState) -> None:
    state.message_history[0].payload.content_type = "text/plain"


def one_less(state: AgentState) -> None:
    del state.message_history[1]


def one_more(state: AgentState) -> None:
    state.message_history.append(Message(payload=Payload(content_type="application/json", data=b"{}")))


def provider(state: AgentState) -> None:
    state.llm_provider = "another"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spaces, "messages[1]: the payload's bytes differ"),
        (role, "messages[0]: differs beside the payload's bytes"),
        (content_type, "messages[0]: differs beside the payload's bytes"),
        (one_less, "1 messages were restored, not 2"),
        (one_more, "3 messages were restored, not 2"),
        (provider, "the state differs beside its messages"),
    ],
)
def test_a_changed_state_is_found(change: Callable[[AgentState], None], told: str) -> None:
    state = saved()
    change(state)
    assert problems(state) == [told]


def test_another_revision_is_found() -> None:
    assert problems(saved(), head=3) == [
        "head_revision is 3, not 2",
        "revision is 3, not 2",
        "message_count is 3, not 2",
    ]


def test_another_source_is_found() -> None:
    assert problems(saved(), source=[{"n": 1}, {"n": 2.5}]) == [
        "messages[1]: decodes to something else than the source"
    ]
