"""Enums, classes and modules as names that are only looked up; of an auth context the type."""

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from agent_sessions import (
    AgentState,
    AuthContext,
    Message,
    NotRegistered,
    Payload,
    State,
    StateCodec,
    UnsupportedValue,
    dotted_name,
)
from agent_sessions.tagged_json import TAGGED_JSON

from tests.unit.client.objects import Color, Other, Permission, Provider
from tests.unit.client.state_codec import CODEC, NAMED


@pytest.mark.parametrize("thing", NAMED)
def test_the_provider_is_stored_as_its_dotted_name(thing: Any) -> None:
    encoded = CODEC.encode(State(llm_provider=thing))
    assert encoded.llm_provider == dotted_name(thing)
    assert encoded.llm_provider.startswith("tests.unit.client.objects")
    assert CODEC.decode(encoded).llm_provider is thing


def test_a_provider_that_is_not_registered_here_stays_a_string() -> None:
    encoded = CODEC.encode(State(llm_provider=Provider))
    assert StateCodec().decode(encoded).llm_provider == dotted_name(Provider)


@pytest.mark.parametrize("thing", [Other, json, Permission.READ | Permission.WRITE])
def test_what_is_not_registered_is_refused_by_name(thing: Any) -> None:
    for state in (State(llm_provider=thing), State(messages=[{"x": [thing]}])):
        with pytest.raises(NotRegistered) as caught:
            CODEC.encode(state)
        assert caught.value.name == dotted_name(thing)
        assert caught.value.path in ("llm_provider", "messages[0]['x'][0]")


@pytest.mark.parametrize("tag", ["$enum", "$class", "$module"])
@pytest.mark.parametrize("name", ["antigravity", "os.system", "tests.unit.client.objects.Other", "builtins.eval"])
def test_stored_names_are_never_imported(tag: str, name: str) -> None:
    data = json.dumps({"x": {tag: name}}).encode()
    payload = Payload(content_type=TAGGED_JSON, data=data)
    before = set(sys.modules)
    with pytest.raises(NotRegistered) as caught:
        CODEC.decode(AgentState(message_history=[Message(payload=payload)]))
    assert (caught.value.name, caught.value.path) == (name, "messages[0]['x']")
    assert set(sys.modules) == before


def test_attributes_of_registered_objects_are_not_followed() -> None:
    codec = StateCodec(Provider, Color)
    for name in (f"{dotted_name(Provider)}.Nested", f"{dotted_name(Color)}.__members__"):
        data = json.dumps({"x": {"$class": name}}).encode()
        message = Message(payload=Payload(content_type=TAGGED_JSON, data=data))
        with pytest.raises(NotRegistered):
            codec.decode(AgentState(message_history=[message]))


def test_registering() -> None:
    codec = StateCodec()
    assert codec.register(Provider) is codec.register(Provider) is Provider
    with pytest.raises(ValueError, match="another object"):
        codec.register(Other, name=dotted_name(Provider))
    with pytest.raises(ValueError, match="registered as"):
        codec.register(Provider, name="provider")
    codec.register(Other, name="other")
    assert codec.encode(State(llm_provider=Other)).llm_provider == "other"
    with pytest.raises(TypeError, match="classes and modules"):
        codec.register("os.system")  # type: ignore[type-var]  # on purpose
    with pytest.raises(UnsupportedValue, match="give the object"):
        codec.encode(State(llm_provider="other"))


class Credentials:
    type = "oauth"
    token = "s3cret"  # noqa: S105 – what must not be stored

    def __repr__(self) -> str:
        return f"Credentials({self.token})"


@pytest.mark.parametrize(
    "context",
    [
        Credentials(),
        {"type": "oauth", "password": "s3cret"},
        SimpleNamespace(type="oauth", key="s3cret"),
    ],
)
def test_of_an_auth_context_only_the_type_is_kept(context: Any) -> None:
    state = State(auth_context=context)
    encoded = CODEC.encode(state)
    assert "s3cret" not in repr(state)
    assert b"s3cret" not in encoded.SerializeToString()
    assert CODEC.decode(encoded).auth_context == AuthContext("oauth")


@pytest.mark.parametrize("context", [{"kind": "s3cret"}, {"type": ["s3cret"]}, "s3cret"])
def test_a_refused_auth_context_is_not_shown(context: Any) -> None:
    with pytest.raises(UnsupportedValue) as caught:
        CODEC.encode(State(auth_context=context))
    assert caught.value.path == "auth_context.type"
    assert "s3cret" not in str(caught.value)


def test_an_auth_type_may_be_an_enum_of_strings() -> None:
    assert CODEC.encode(State(auth_context={"type": Color.RED})).auth_context.type == "red"


def test_unknown_fields_of_a_given_auth_context_are_discarded() -> None:
    given_state = AgentState.FromString(b"\x32\x0f\x0a\x05oauth\x12\x06s3cret")
    assert b"s3cret" in given_state.SerializeToString()
    encoded = CODEC.encode(given_state)
    assert encoded.auth_context.type == "oauth"
    assert b"s3cret" not in encoded.SerializeToString()
    assert b"s3cret" in given_state.SerializeToString(), "the caller's own object was changed"
