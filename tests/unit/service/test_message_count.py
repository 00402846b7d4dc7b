"""The most messages, and names of values, that one save may hold."""

import pytest
from agent_sessions.v1.session_pb2 import AgentState, Message, StateDelta
from agent_sessions.v1.session_service_pb2 import SaveSessionRequest
from session_service.api import convert
from session_service.auth.principal import ANONYMOUS
from session_service.sessions.errors import InvalidField
from session_service.sessions.model import MAX_VALUES, Save, Tenant


def requests(count: int) -> dict[str, SaveSessionRequest]:
    messages = [Message()] * count
    return {
        "snapshot.message_history": SaveSessionRequest(agent_id="a", snapshot=AgentState(message_history=messages)),
        "delta.appended_messages": SaveSessionRequest(agent_id="a", delta=StateDelta(appended_messages=messages)),
    }


def save(request: SaveSessionRequest) -> Save:
    return convert.save(request, Tenant(1, "default", b"secret"), ANONYMOUS, max_messages=3)


@pytest.mark.parametrize("field", requests(0))
def test_more_messages_than_the_limit_are_refused(field: str) -> None:
    save(requests(3)[field])
    with pytest.raises(InvalidField, match="at most 3 messages in one save, got 4") as refused:
        save(requests(4)[field])
    assert refused.value.field == field


def test_more_names_of_values_to_remove_than_a_state_may_have_are_refused() -> None:
    names = [f"n{n}" for n in range(MAX_VALUES)]
    save(SaveSessionRequest(agent_id="a", delta=StateDelta(remove_values=names)))
    with pytest.raises(InvalidField, match=f"at most {MAX_VALUES} names, got {MAX_VALUES + 1}") as refused:
        save(SaveSessionRequest(agent_id="a", delta=StateDelta(remove_values=[*names, "one more"])))
    assert refused.value.field == "delta.remove_values"
