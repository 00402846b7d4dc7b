"""What could not be stored or read exactly is refused, and the place is told."""

import collections
from typing import Any

import pytest
from agent_sessions import (
    AgentState,
    MalformedPayload,
    Message,
    Payload,
    State,
    StateError,
    UnsupportedValue,
)
from agent_sessions.tagged_json import JSON, TAGGED_JSON

from tests.unit.client.state_codec import CODEC, one


class Words(list[str]):
    pass


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (collections.OrderedDict(a=1), "messages[0]['x']"),
        ([Words(["a"])], "messages[0]['x'][0]"),
        ({"y": object()}, "messages[0]['x']['y']"),
        (1j, "messages[0]['x']"),
        ({"y": "\ud83d"}, "messages[0]['x']['y']"),
        ({"\ud83d": 1}, "messages[0]['x'] (key)"),
        ({1: {2: {object()}}}, "messages[0]['x'][1][2][0]"),
        ({object: 1}, "messages[0]['x'] (key)"),
        (bytearray(b"x"), "messages[0]['x']"),
    ],
)
def test_what_would_change_is_refused_by_place(value: Any, path: str) -> None:
    with pytest.raises(StateError) as caught:
        CODEC.encode(State(messages=[{"x": value}]))
    assert caught.value.path == path
    assert str(caught.value).startswith(path)


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = [loop, loop]
    with pytest.raises(UnsupportedValue, match="contains itself"):
        CODEC.encode(State(messages=[loop]))


def test_deep_values_come_back_and_deeper_ones_are_refused() -> None:
    deep: dict[Any, Any] = {}
    for _ in range(63):
        deep = {1: deep}
    assert one(deep) == deep
    with pytest.raises(UnsupportedValue, match="levels"):
        one({"x": deep})


def test_integers_beyond_pythons_own_limit_are_refused() -> None:
    assert one({"x": 10**4000}) == {"x": 10**4000}
    with pytest.raises(UnsupportedValue):
        one({"x": 10**5000})


@pytest.mark.parametrize("message", [None, 1, ["text"], b"bytes", Words()])
def test_other_messages_are_refused(message: Any) -> None:
    with pytest.raises(UnsupportedValue, match=r"^messages\[0\]: a message is"):
        one(message)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"agent_id": 1}, "agent_id"),
        ({"agent_id": "\ud83d"}, "agent_id"),
        ({"messages": ["\ud83d"]}, "messages[0]"),
        ({"loop_state": "IDLE"}, "loop_state"),
        ({"loop_state": True}, "loop_state"),
        ({"created_at": "2026"}, "created_at"),
        ({"llm_provider": None}, "llm_provider"),
        ({"values": {1: 2}}, "values (name)"),
    ],
)
def test_fields_of_another_type_are_refused(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(UnsupportedValue) as caught:
        CODEC.encode(State(**fields))
    assert caught.value.path == path


def test_a_state_of_another_type_is_refused() -> None:
    with pytest.raises(UnsupportedValue, match="State or an AgentState"):
        CODEC.encode({"messages": []})  # type: ignore[arg-type]  # on purpose


@pytest.mark.parametrize(
    ("content_type", "data"),
    [
        (JSON, b"\xff"),
        (JSON, b"{"),
        (JSON, b'{"x": NaN}'),
        (JSON, b"[" * 100_000),
        (TAGGED_JSON, b'{"x": {"$unknown": 1}}'),
        (TAGGED_JSON, b'{"x": {"$bytes": "", "y": 1}}'),
        (TAGGED_JSON, b'{"x": {"y": 1, "$bytes": ""}}'),
        (TAGGED_JSON, b'{"$bytes": "?"}'),
        (TAGGED_JSON, b'{"$bytes": 1}'),
        (TAGGED_JSON, b'{"$float": "00"}'),
        (TAGGED_JSON, b'{"$timestamp": [1]}'),
        (TAGGED_JSON, b'{"$timestamp": 1}'),
        (TAGGED_JSON, b'{"$datetime": "2026-01-01"}'),
        (TAGGED_JSON, b'{"$datetime": 1}'),
        (TAGGED_JSON, b'{"$set": [[]]}'),
        (TAGGED_JSON, b'{"$set": 1}'),
        (TAGGED_JSON, b'{"$dict": [[1]]}'),
        (TAGGED_JSON, b'{"$dict": {}}'),
        (TAGGED_JSON, b'{"$enum": 1}'),
        (TAGGED_JSON, b'{"$class": "tests.unit.client.objects"}'),
        (TAGGED_JSON, b'{"x":' * 3000 + b"1" + b"}" * 3000),
    ],
)
def test_damaged_payloads_are_told(content_type: str, data: bytes) -> None:
    message = Message(payload=Payload(content_type=content_type, data=data))
    with pytest.raises(MalformedPayload) as caught:
        CODEC.decode(AgentState(message_history=[Message(text="fine"), message]))
    assert caught.value.path.startswith("messages[1]")
