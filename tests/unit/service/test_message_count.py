"""The most messages that one save may hold."""

import pytest
from agent_sessions.v1.session_pb2 import AgentState, Message, StateDelta
from agent_sessions.v1.session_service_pb2 import SaveSessionRequest
from session_service.api.convert import check_message_count
from session_service.sessions.errors import InvalidField


def requests(count: int) -> dict[str, SaveSessionRequest]:
    messages = [Message()] * count
    return {
        "snapshot.message_history": SaveSessionRequest(snapshot=AgentState(message_history=messages)),
        "delta.appended_messages": SaveSessionRequest(delta=StateDelta(appended_messages=messages)),
    }


@pytest.mark.parametrize("field", requests(0))
def test_more_messages_than_the_limit_are_refused(field: str) -> None:
    check_message_count(requests(3)[field], 3)
    with pytest.raises(InvalidField, match="at most 3 messages in one save, got 4") as refused:
        check_message_count(requests(4)[field], 3)
    assert refused.value.field == field
