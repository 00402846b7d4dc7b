"""Unknown fields of a snapshot: kept if this server can take them apart again; else dropped, or refused."""

import pytest
from agent_sessions.v1.session_pb2 import AgentState
from session_service.api.states import take_apart
from session_service.sessions import fragments
from session_service.sessions.errors import InvalidField

TEXT = b"\xba\x3e\x03new"
"""Field 999, length-delimited."""
GROUP = b"\xbb\x3e\x0a\x01x\xbc\x3e"
"""Field 999, a group with a field inside."""
MESSAGES_AS_NUMBER = b"\x10\x07"
ENTRY = b"\x3a\x0b\x0a\x03a\x00b\x12\x00\x1a\x02hi"
"""An entry of values whose name would be refused, with an unknown field 3."""
AUTH_AS_GROUP = b"\x33\x0a\x06secret\x34"


def kept(wire: bytes) -> bytes:
    return take_apart(AgentState.FromString(b'\x12\x04"\x02hi' + wire), "a").kept


def test_a_newer_field_is_kept() -> None:
    assert [number for number, _ in fragments.fields(kept(TEXT))] == [999]


@pytest.mark.parametrize("group", [GROUP, AUTH_AS_GROUP])
def test_groups_are_dropped(group: bytes) -> None:
    assert kept(group) == b""
    assert kept(group + TEXT) == b""


@pytest.mark.parametrize(("wire", "field"), [(MESSAGES_AS_NUMBER, "message_history"), (ENTRY, "values")])
def test_a_known_field_in_another_form_is_refused(wire: bytes, field: str) -> None:
    with pytest.raises(InvalidField, match=f"^snapshot.{field}: "):
        kept(wire)
