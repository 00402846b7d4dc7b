"""Python objects as an AgentState, and back.

What is accepted reads back equal; what could not is refused, naming the place.
These differ in form, not in meaning, after a round trip: a datetime comes back
in UTC; a Timestamp that a datetime can hold comes back as one; a protobuf
Message or Payload that says no more than a str, dict or bytes comes back as that;
of an auth_context its type is left, as an AuthContext.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, IntEnum
from types import ModuleType
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from agent_sessions.errors import NotRegistered, UnsupportedValue
from agent_sessions.names import NameRegistry
from agent_sessions.tagged_json import JSON, TAGGED_JSON, decode_json, encode_json
from agent_sessions.timestamps import from_timestamp, to_timestamp
from agent_sessions.v1 import session_pb2 as pb

OCTETS = "application/octet-stream"

_Object = TypeVar("_Object", bound=type | ModuleType)


class LoopState(IntEnum):
    """The place in its loop where an agent stopped; equal to the protobuf enum's numbers."""

    UNSPECIFIED = 0
    """The service stores and returns it as IDLE."""
    IDLE = 1
    THINKING = 2
    EXECUTING_TOOL = 3
    WAITING_FOR_INPUT = 4
    STOPPED = 5


@dataclass(frozen=True, slots=True)
class AuthContext:
    """How an agent was authenticated, never with what."""

    type: str


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything an agent needs to go on with a conversation."""

    agent_id: str = ""
    """Empty: the service fills in the agent of the call."""
    messages: list[Any] = field(default_factory=list)
    """Oldest first. Each a dict, a str, or a protobuf Message."""
    loop_state: int = LoopState.IDLE
    """A LoopState; a number that this version does not know stays an int."""
    created_at: datetime | Timestamp | None = None
    """An aware datetime; a Timestamp where nanoseconds matter."""
    llm_provider: str | Enum | type | ModuleType = ""
    """A name, or a registered enum member, class or module, stored as its dotted name."""
    auth_context: Any = field(default=None, repr=False)  # its repr may show a credential
    """None, or any object or mapping with a `type`; nothing else of it is stored."""
    values: dict[str, Any] = field(default_factory=dict)
    """Named values beside the conversation: what JSON holds, bytes, datetimes and the
    rest of `tagged_json`, or protobuf Payloads."""


class StateCodec:
    """Turns a State into an AgentState and back; knows the objects that stored names stand for."""

    def __init__(self, *objects: type | ModuleType) -> None:
        self._names = NameRegistry()
        for thing in objects:
            self.register(thing)

    def register(self, thing: _Object, *, name: str | None = None) -> _Object:
        """Let the class (an enum with all its members) or module be stored and looked up by name.

        Returns it, so that this is a decorator, too. Without `name` it is the
        dotted name by which Python finds it. Raises ValueError if the name or
        the object is taken.
        """
        return self._names.register(thing, name)

    def encode(self, state: State | pb.AgentState) -> pb.AgentState:
        """Return the AgentState; one that is given already is copied, without unknown auth fields.

        Raises UnsupportedValue or NotRegistered.
        """
        if isinstance(state, pb.AgentState):
            return _copy(state)
        if not isinstance(state, State):
            raise UnsupportedValue(f"a state is a State or an AgentState, not {type(state).__qualname__}")
        return pb.AgentState(
            agent_id=_text(state.agent_id, "agent_id"),
            message_history=[self.encode_message(m, f"messages[{i}]") for i, m in enumerate(state.messages)],
            loop_state=_loop_state(state.loop_state),
            created_at=None if state.created_at is None else _moment(state.created_at),
            llm_provider=self._provider(state.llm_provider),
            auth_context=_auth_context(state.auth_context),
            values={
                _text(name, "values (name)"): self.encode_value(value, f"values[{name!r}]")
                for name, value in state.values.items()
            },
        )

    def decode(self, state: pb.AgentState) -> State:
        """Return the State. Raises MalformedPayload or NotRegistered.

        An llm_provider that is no registered name stays a string.
        """
        provider = state.llm_provider
        return State(
            agent_id=state.agent_id,
            messages=[
                self._read_message(message, f"messages[{index}]") for index, message in enumerate(state.message_history)
            ],
            loop_state=_known_loop_state(state.loop_state),
            created_at=from_timestamp(state.created_at) if state.HasField("created_at") else None,
            llm_provider=self._names.lookup(provider) if self._names.knows(provider) else provider,
            auth_context=AuthContext(state.auth_context.type) if state.HasField("auth_context") else None,
            values={name: self._read_payload(payload, f"values[{name!r}]") for name, payload in state.values.items()},
        )

    def encode_message(self, message: object, path: str = "message") -> pb.Message:
        """Return one message; a protobuf Message is returned as it is. Raises as `encode` does."""
        if isinstance(message, pb.Message):
            return message
        if type(message) is str:
            return pb.Message(text=_text(message, path))
        if type(message) is dict:
            encoded = pb.Message()  # filled in place: a Payload given to the constructor would be copied
            encoded.payload.content_type, encoded.payload.data = encode_json(message, self._names, path)
            return encoded
        kind = type(message).__qualname__
        raise UnsupportedValue(f"a message is a dict, a str or a protobuf Message, not {kind}", path)

    def _read_message(self, message: pb.Message, path: str) -> Any:
        if not _is_bare(message):
            return message
        if message.WhichOneof("content") == "text":
            return message.text
        value = self._read_payload(message.payload, path)
        return value if type(value) is dict else message

    def encode_value(self, value: object, path: str = "value") -> pb.Payload:
        """Return one named value; a Payload is returned as it is. Raises as `encode` does."""
        if isinstance(value, pb.Payload):
            return value
        if type(value) is bytes:
            return pb.Payload(content_type=OCTETS, data=value)
        return self._json(value, path)

    def _read_payload(self, payload: pb.Payload, path: str) -> Any:
        if payload.content_type in (JSON, TAGGED_JSON):
            return decode_json(payload.content_type, payload.data, self._names, path)
        return payload.data if payload.content_type == OCTETS else payload

    def _json(self, value: object, path: str) -> pb.Payload:
        content_type, data = encode_json(value, self._names, path)
        return pb.Payload(content_type=content_type, data=data)

    def _provider(self, provider: object) -> str:
        path = "llm_provider"
        if isinstance(provider, Enum | type | ModuleType):
            try:
                return self._names.name_of(provider)
            except NotRegistered as error:
                raise NotRegistered(error.name, path) from None
        name = _text(provider, path)
        if self._names.knows(name):
            raise UnsupportedValue(f"{name} is a registered object's name; give the object", path)
        return name


def _copy(state: pb.AgentState) -> pb.AgentState:
    copy = pb.AgentState()
    copy.CopyFrom(state)
    if copy.HasField("auth_context"):
        copy.auth_context.DiscardUnknownFields()
    return copy


def _is_bare(message: pb.Message) -> bool:
    """Tell whether the message has a content and nothing else."""
    described = message.message_id or message.role or message.HasField("create_time")
    return not described and message.WhichOneof("content") is not None


def _text(value: object, path: str) -> str:
    if type(value) is not str:
        raise UnsupportedValue(f"must be a str, not {type(value).__qualname__}", path)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UnsupportedValue("a string with half of a surrogate pair is not text", path) from None
    return value


def _moment(value: object) -> Timestamp:
    if not isinstance(value, datetime | Timestamp):
        raise UnsupportedValue(f"must be an aware datetime, not {type(value).__qualname__}", "created_at")
    return to_timestamp(value, "created_at")


def _loop_state(value: object) -> Any:
    if type(value) is not int and not isinstance(value, LoopState):
        raise UnsupportedValue(f"must be a LoopState, not {type(value).__qualname__}", "loop_state")
    return int(value)


def _known_loop_state(number: int) -> int:
    return LoopState(number) if number in LoopState.__members__.values() else int(number)


def _auth_context(context: object) -> pb.AuthContext | None:
    """Keep the type and nothing else; errors never show the context, which may hold a credential."""
    if context is None:
        return None
    path = "auth_context.type"
    kind = context.get("type") if isinstance(context, Mapping) else getattr(context, "type", None)
    if isinstance(kind, Enum):
        kind = kind.value
    if type(kind) is not str:
        raise UnsupportedValue("an auth_context has a `type` that is a str", path)
    return pb.AuthContext(type=_text(kind, path))
