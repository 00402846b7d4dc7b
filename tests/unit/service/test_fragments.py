"""Messages as pieces of AgentState's wire form."""

import pytest
from agent_sessions.v1.session_pb2 import AgentState, Message
from hypothesis import given
from hypothesis import strategies as st
from session_service.sessions import fragments

MESSAGES = st.lists(st.binary(max_size=300), max_size=12)


@given(MESSAGES)
def test_split_gives_back_what_join_took(messages: list[bytes]) -> None:
    assert list(fragments.split(fragments.join(messages))) == messages


@given(MESSAGES, st.data())
def test_offset_is_where_the_next_message_begins(messages: list[bytes], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(messages)))
    payload = fragments.join(messages)
    assert list(fragments.split(payload[fragments.offset_of(payload, count) :])) == messages[count:]


@given(MESSAGES)
def test_framed_size_is_what_frame_takes(messages: list[bytes]) -> None:
    assert [fragments.framed_size(m) for m in messages] == [len(fragments.frame(m)) for m in messages]


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 2097151, 2097152])
def test_frames_of_every_length_are_protobuf(size: int) -> None:
    message = Message(text="x" * size)
    encoded = message.SerializeToString()
    state = AgentState.FromString(fragments.join([encoded, encoded]))
    assert list(state.message_history) == [message, message]
    assert fragments.framed_size(encoded) == len(fragments.frame(encoded))


@pytest.mark.parametrize(
    "payload",
    [b"\x13\x00", b"\x12", b"\x12\x05ab", b"\x12\x80", b"\x12\xff\xff\xff\xff\xff\xff\x01", b"\x12\x00junk"],
    ids=["another tag", "no length", "cut off", "length cut off", "length too long", "junk behind"],
)
def test_damage_is_told(payload: bytes) -> None:
    with pytest.raises(fragments.MalformedFragment):
        list(fragments.split(payload))


def test_offset_beyond_the_end_is_told() -> None:
    with pytest.raises(fragments.MalformedFragment):
        fragments.offset_of(fragments.join([b"a"]), 2)
