"""A codec that knows some objects, and round trips through it."""

from typing import Any

from agent_sessions import (
    AgentState,
    State,
    StateCodec,
)

from tests.unit.client import objects
from tests.unit.client.objects import Color, Permission, Provider, Text

CODEC = StateCodec(Color, Text, Permission, Provider, Provider.Nested, objects)
NAMED: list[Any] = [Color.RED, Text.HELLO, Permission.READ, Provider, Provider.Nested, Color, objects]


def through_bytes(state: State, codec: StateCodec = CODEC) -> State:
    return codec.decode(AgentState.FromString(codec.encode(state).SerializeToString()))


def one(message: Any) -> Any:
    """Return a message after a round trip."""
    return through_bytes(State(messages=[message])).messages[0]
