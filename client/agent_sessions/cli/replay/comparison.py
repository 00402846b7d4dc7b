"""Whether what was restored is what was saved, to the byte, and reads back as the source."""

from collections.abc import Iterator
from dataclasses import dataclass

from agent_sessions.cli.replay.corpus import Conversation
from agent_sessions.errors import StateError
from agent_sessions.results import RestoredRevision
from agent_sessions.v1.session_pb2 import AgentState


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One thing that did not come back as it was."""

    agent_id: str
    session_name: str
    problem: str

    def __str__(self) -> str:
        return f"agents/{self.agent_id}/sessions/{self.session_name}: {self.problem}"


def mismatches(saved: AgentState, conversation: Conversation, restored: RestoredRevision) -> Iterator[Mismatch]:
    """Yield every difference between the last saved state, the source, and what was restored."""
    problems = [*_revision(saved, restored), *_messages(saved, restored), *_rest(saved, restored)]
    for problem in problems or _source(conversation, restored):
        yield Mismatch(conversation.agent_id, conversation.session_name, problem)


def _revision(saved: AgentState, restored: RestoredRevision) -> Iterator[str]:
    count = len(saved.message_history)
    for name, number in (
        ("head_revision", restored.session.head_revision),
        ("revision", restored.revision.revision),
        ("message_count", restored.revision.message_count),
    ):
        if number != count:
            yield f"{name} is {number}, not {count}"


def _messages(saved: AgentState, restored: RestoredRevision) -> Iterator[str]:
    expected, actual = saved.message_history, restored.agent_state.message_history
    if len(actual) != len(expected):
        yield f"{len(actual)} messages were restored, not {len(expected)}"
    for index, (before, after) in enumerate(zip(expected, actual, strict=False)):
        if after.payload.data != before.payload.data:
            yield f"messages[{index}]: the payload's bytes differ"
        elif after.SerializeToString(deterministic=True) != before.SerializeToString(deterministic=True):
            yield f"messages[{index}]: differs beside the payload's bytes"


def _rest(saved: AgentState, restored: RestoredRevision) -> Iterator[str]:
    """Compare everything but the messages."""
    before, after = AgentState(), AgentState()
    before.CopyFrom(saved)
    after.CopyFrom(restored.agent_state)
    for state in (before, after):
        del state.message_history[:]
    if after != before:
        yield "the state differs beside its messages"


def _source(conversation: Conversation, restored: RestoredRevision) -> Iterator[str]:
    try:
        decoded = restored.decode().messages
    except StateError as error:
        yield f"cannot be decoded: {error}"
        return
    for index, (source, message) in enumerate(zip(conversation.messages, decoded, strict=True)):
        if message != source:
            yield f"messages[{index}]: decodes to something else than the source"
