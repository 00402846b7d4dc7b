"""AgentState in and out: checked, taken apart into fragments, and put together again."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from agent_sessions.v1.session_pb2 import AgentState, AuthContext, LoopState, Message, Payload, Role, StateDelta
from agent_sessions.v1.session_service_pb2 import (
    DownloadHeader,
    DownloadSessionResponse,
    GetRevisionResponse,
    RestoreSessionResponse,
    StateBatch,
)
from google.protobuf.unknown_fields import UnknownFieldSet

from session_service.api import fields
from session_service.sessions import fragments
from session_service.sessions.errors import AgentIdMismatch, InvalidField
from session_service.sessions.model import MAX_VALUES, Content, Delta, Restored

DEFAULT_MAX_MESSAGES = 20_000
"""Messages in one save, unless the server's setting says otherwise."""

NO_VALUES: Mapping[str, bytes] = MappingProxyType({})
"""No values."""

Piece = bytes | memoryview

_FIELDS = AgentState.DESCRIPTOR.fields_by_number
_GROUP = 3
"""A wire type of protobuf's: the start of a group."""

LOOP_STATES = LoopState.DESCRIPTOR.values_by_number
ROLES = Role.DESCRIPTOR.values_by_number


def take_apart(state: AgentState, agent_id: str, max_messages: int = DEFAULT_MAX_MESSAGES) -> Content:
    """The content of a snapshot. Uses `state` up.

    Unknown fields inside auth_context are dropped: whatever a caller put there
    might be a credential. Elsewhere they are kept, for newer callers' sake.

    Raises:
        InvalidField: a rule is broken.
        AgentIdMismatch: the state names another agent.
    """
    if state.agent_id and state.agent_id != agent_id:
        raise AgentIdMismatch(
            f"snapshot.agent_id: is {state.agent_id!r}, but the request's agent_id is {agent_id!r}",
            {"field": "snapshot.agent_id"},
        )
    if state.HasField("created_at"):
        fields.timestamp("snapshot.created_at", state.created_at)
    messages = _messages("snapshot.message_history", state.message_history, max_messages)
    values = _values("snapshot.values", state.values)
    small = _small("snapshot", state)
    # What is left is kept as it is, unknown fields included.
    for part in ("agent_id", "message_history", "values", "loop_state", "llm_provider", "auth_context"):
        state.ClearField(part)
    _check_unknown(state)
    return Content(messages, values, small, state.SerializeToString(deterministic=True))


def _check_unknown(state: AgentState) -> None:
    """Drop unknown fields that might be a credential, and groups, which nothing here could take apart again.

    Raises:
        InvalidField: a field that is known came in another form, as a map's entry does that has unknown fields inside.
    """
    unknown = UnknownFieldSet(state)
    found = [(unknown[place].field_number, unknown[place].wire_type) for place in range(len(unknown))]
    for number, _ in found:
        if number in _FIELDS and number != AgentState.AUTH_CONTEXT_FIELD_NUMBER:
            raise InvalidField(f"snapshot.{_FIELDS[number].name}", "must have the form of its field", f"field {number}")
    if any(number in _FIELDS or wire_type == _GROUP for number, wire_type in found):
        state.DiscardUnknownFields()


def take_batch(batch: StateBatch, first: int, max_messages: int = DEFAULT_MAX_MESSAGES) -> list[bytes]:
    """The messages of a batch of an upload; `first`: how many came before. Raises: InvalidField."""
    if batch.values:
        raise InvalidField("batch.values", "an upload has all values in its header", len(batch.values))
    if len(batch.message_history) > max_messages:
        raise InvalidField("batch.message_history", f"at most {max_messages} in one batch", len(batch.message_history))
    return _messages("snapshot.message_history", batch.message_history, max_messages, first)


def take_delta_apart(delta: StateDelta, max_messages: int = DEFAULT_MAX_MESSAGES) -> Delta:
    """The content of a delta. Uses `delta` up.

    Raises:
        InvalidField: a rule is broken.
    """
    truncate_to = None
    if delta.HasField("truncate_to"):
        truncate_to = fields.not_negative("delta.truncate_to", delta.truncate_to)
    # Most deltas have nothing but messages.
    set_values, remove_values = delta.set_values, delta.remove_values
    return Delta(
        fields.not_negative("delta.base_revision", delta.base_revision),
        fields.optional_name("delta.base_etag", delta.base_etag),
        truncate_to,
        _messages("delta.appended_messages", delta.appended_messages, max_messages),
        _values("delta.set_values", set_values) if set_values else NO_VALUES,
        _names("delta.remove_values", remove_values) if remove_values else (),
        _small("delta", delta),
    )


def append_to(answer: RestoreSessionResponse | GetRevisionResponse, found: Restored, agent_id: str) -> bytes:
    """An answer in wire form, with the state that was stored.

    The stored bytes are an AgentState already, and every row's checksum was
    looked at: a state of megabytes is neither parsed nor written anew.
    """
    state = _embedded(answer.STATE_FIELD_NUMBER, found.pieces or (), agent_id)
    return b"".join((answer.SerializeToString(), *state))


def header_of(header: DownloadHeader, state: bytes, agent_id: str) -> bytes:
    """The first message of a download in wire form; see append_to()."""
    whole = b"".join((header.SerializeToString(), *_embedded(header.STATE_FIELD_NUMBER, (state,), agent_id)))
    return _prefix(DownloadSessionResponse.HEADER_FIELD_NUMBER, len(whole)) + whole


def batch_of(part: bytes) -> bytes:
    """A further message of a download in wire form: a part of an AgentState is a StateBatch as it is."""
    return _prefix(DownloadSessionResponse.BATCH_FIELD_NUMBER, len(part)) + part


def _embedded(number: int, state: Sequence[Piece], agent_id: str) -> tuple[Piece, ...]:
    agent = AgentState(agent_id=agent_id).SerializeToString()
    return _prefix(number, sum(map(len, state)) + len(agent)), *state, agent


def _prefix(number: int, size: int) -> bytes:
    """What comes before a message of so many bytes in a field of another one."""
    return fragments.varint(number << 3 | 2) + fragments.varint(size)


def _small(path: str, given: AgentState | StateDelta) -> bytes:
    """The fields that every save gives anew, as a fragment of AgentState."""
    auth_type = given.auth_context.type if given.HasField("auth_context") else None
    return _small_fields(path, given.loop_state, given.llm_provider, auth_type)


@lru_cache(maxsize=1024)  # they change seldom, and come with every save
def _small_fields(path: str, loop_state: int, llm_provider: str, auth_type: str | None) -> bytes:
    fields.known(f"{path}.loop_state", loop_state, LOOP_STATES)
    fields.length(f"{path}.llm_provider", llm_provider)
    small = AgentState(
        loop_state=LoopState.Name(loop_state or LoopState.LOOP_STATE_IDLE),
        llm_provider=llm_provider,
        # Built anew, so that nothing but the type comes along.
        auth_context=None if auth_type is None else AuthContext(type=_auth_type(path, auth_type)),
    )
    return small.SerializeToString(deterministic=True)


def _auth_type(path: str, auth_type: str) -> str:
    return fields.optional_name(f"{path}.auth_context.type", auth_type)


def _values(path: str, given: Mapping[str, Payload]) -> Mapping[str, bytes]:
    """Each value as a fragment of AgentState."""
    if len(given) > MAX_VALUES:
        raise InvalidField(path, f"at most {MAX_VALUES} entries", len(given))
    found = {}
    for name, payload in given.items():
        fields.name(f"{path} key", name)
        fields.length(f"{path}[{name!r}].content_type", payload.content_type)
        found[name] = AgentState(values={name: payload}).SerializeToString(deterministic=True)
    return found


def _names(path: str, given: Sequence[str]) -> Sequence[str]:
    if len(given) > MAX_VALUES:
        raise InvalidField(path, f"at most {MAX_VALUES} names", len(given))
    return [fields.name(f"{path}[{index}]", name) for index, name in enumerate(given)]


def _messages(path: str, given: Sequence[Message], limit: int, first: int = 0) -> list[bytes]:
    if len(given) > limit:  # before any of them is looked at
        raise InvalidField(path, f"at most {limit} messages in one save", len(given))
    return [_message(path, index, message) for index, message in enumerate(given, first)]


def _message(path: str, index: int, message: Message) -> bytes:
    # Runs for every message of every snapshot: the path is made only where it is needed.
    if message.role not in ROLES:
        fields.known(f"{path}[{index}].role", message.role, ROLES)
    if len(message.message_id) > fields.NAME_LENGTH:
        fields.length(f"{path}[{index}].message_id", message.message_id)
    if message.HasField("create_time"):
        fields.timestamp(f"{path}[{index}].create_time", message.create_time)
    # A payload that is not there reads as an empty one.
    if len(message.payload.content_type) > fields.NAME_LENGTH:
        fields.length(f"{path}[{index}].payload.content_type", message.payload.content_type)
    return message.SerializeToString(deterministic=True)
