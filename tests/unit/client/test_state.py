"""State to AgentState and back: what is accepted comes back equal."""

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from agent_sessions import (
    AgentState,
    AuthContext,
    LoopState,
    Message,
    Payload,
    State,
)
from agent_sessions.tagged_json import JSON, TAGGED_JSON
from agent_sessions.v1 import session_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.client.state_codec import CODEC, NAMED, one, through_bytes

texts = st.text(st.characters(exclude_categories=["Cs"]))
offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=offsets)
stamps = st.builds(Timestamp, seconds=st.integers(-(2**40), 2**40), nanos=st.integers(0, 999_999_999))
keys = st.one_of(texts, st.sampled_from(["$datetime", "$", "$$x", "$ref", "role"]))
hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    texts,
    st.binary(),
    moments,
    st.sampled_from(NAMED),
)
hashables = st.one_of(hashables, st.lists(hashables, max_size=3).map(tuple), st.frozensets(hashables, max_size=3))
anything = st.recursive(
    st.one_of(hashables, stamps),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.sets(hashables, max_size=3),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=3),
    ),
    max_leaves=12,
)
dicts = st.one_of(st.dictionaries(keys, anything, max_size=4), st.dictionaries(hashables, anything, max_size=3))
proto_messages = st.builds(Message, message_id=texts.filter(bool), text=texts)
states = st.builds(
    State,
    agent_id=texts,
    messages=st.lists(st.one_of(texts, dicts, proto_messages), max_size=4),
    loop_state=st.sampled_from(LoopState),
    created_at=st.one_of(st.none(), moments),
    llm_provider=st.one_of(texts, st.sampled_from(NAMED)),
    auth_context=st.one_of(st.none(), st.builds(AuthContext, texts)),
    values=st.dictionaries(texts, anything, max_size=3),
)


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal, types and the order of dicts included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left.items(), right.items(), strict=True))
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, float):
        return struct.pack(">d", left) == struct.pack(">d", right)
    if isinstance(left, set | frozenset):
        return bool(left == right) and {(type(item), item) for item in left} == {(type(item), item) for item in right}
    return bool(left == right)


@given(states)
@example(State(messages=[{"$datetime": "x"}, {"$datetime": datetime(2026, 1, 1, tzinfo=UTC)}]))
@example(State(messages=[{1: 1, "1": 1}, {"a": -0.0}, {"": {"$": {"$$": b"\x00"}}}]))
def test_what_is_accepted_comes_back_equal(state: State) -> None:
    back = through_bytes(state)
    assert back == state
    assert same(back.messages, state.messages)
    # A protobuf map has no order.
    assert all(same(back.values[name], value) for name, value in state.values.items())
    assert same(back.llm_provider, state.llm_provider)
    assert CODEC.encode(back) == CODEC.encode(state)


@given(st.dictionaries(keys, st.one_of(st.none(), texts, st.lists(st.integers()), st.dictionaries(keys, texts))))
def test_plain_json_is_written_as_it_is(message: dict[str, Any]) -> None:
    payload = CODEC.encode(State(messages=[message])).message_history[0].payload
    assert payload.content_type == JSON
    assert json.loads(payload.data) == message


def test_content_types() -> None:
    encoded = CODEC.encode(State(messages=["text", {"$ref": 1}, {"at": b""}], values={"raw": b"\x00"}))
    text, plain, tagged = encoded.message_history
    assert text.WhichOneof("content") == "text"
    assert (plain.payload.content_type, plain.payload.data) == (JSON, b'{"$ref":1}')
    assert (tagged.payload.content_type, tagged.payload.data) == (TAGGED_JSON, b'{"at":{"$bytes":""}}')
    assert encoded.values["raw"] == Payload(content_type="application/octet-stream", data=b"\x00")


@pytest.mark.parametrize("bits", ["7ff8000000000000", "fff8000000000001", "7ff0000000000000", "fff0000000000000"])
def test_floats_that_json_lacks_keep_their_bits(bits: str) -> None:
    value = struct.unpack(">d", bytes.fromhex(bits))[0]
    assert not math.isfinite(value)
    assert struct.pack(">d", one({"x": value})["x"]).hex() == bits


def test_sets_are_written_in_one_order() -> None:
    names = [f"tool-{n}" for n in range(50)]
    forward, backward = {*names}, {*names[::-1]}
    assert list(forward) != list(backward) or list(forward) != sorted(forward)
    assert CODEC.encode(State(messages=[{"s": forward}])) == CODEC.encode(State(messages=[{"s": backward}]))


def test_protobuf_messages_and_payloads_pass_through() -> None:
    foreign = Payload(content_type="application/x-pickle", data=b"\x80")
    described = Message(message_id="1", role=2, text="hi")  # type: ignore[arg-type]  # a Role is an int
    state = State(messages=[Message(payload=foreign), described, Message()], values={"v": foreign})
    encoded = CODEC.encode(state)
    assert list(encoded.message_history) == state.messages
    assert encoded.values["v"] == foreign
    assert CODEC.decode(encoded) == state


def test_a_json_payload_that_is_no_object_stays_a_message() -> None:
    message = Message(payload=Payload(content_type=JSON, data=b"[1]"))
    assert CODEC.decode(AgentState(message_history=[message])).messages == [message]


def test_loop_states_equal_the_protocols() -> None:
    assert {f"LOOP_STATE_{state.name}": state.value for state in LoopState} == dict(pb.LoopState.items())
    assert CODEC.decode(AgentState(loop_state=2)).loop_state is LoopState.THINKING  # type: ignore[arg-type]  # an int
    assert CODEC.decode(AgentState.FromString(b"\x18\x63")).loop_state == 99
