"""AgentState in and out: checked, taken apart into fragments, and put together again."""

from agent_sessions.v1.session_pb2 import AgentState, AuthContext, LoopState, Message, Role
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from session_service.api import fields
from session_service.sessions.errors import AgentIdMismatch, CorruptData, InvalidField
from session_service.sessions.model import Content, Restored

MAX_VALUES = 1000
"""Named values in a state."""

LOOP_STATES = LoopState.DESCRIPTOR.values_by_number
ROLES = Role.DESCRIPTOR.values_by_number


def take_apart(state: AgentState, agent_id: str) -> Content:
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
    _check(state)
    messages = [message.SerializeToString(deterministic=True) for message in state.message_history]
    values = {name: _value(state, name) for name in state.values}
    # What is left is everything but the parts taken out, unknown fields included.
    for part in ("agent_id", "message_history", "values"):
        state.ClearField(part)
    if state.HasField("auth_context"):
        state.auth_context.DiscardUnknownFields()
    unknown = UnknownFieldSet(state)
    numbers = {unknown[place].field_number for place in range(len(unknown))}
    if AgentState.AUTH_CONTEXT_FIELD_NUMBER in numbers:  # in another wire type: a group
        state.DiscardUnknownFields()
    state.loop_state = state.loop_state or LoopState.LOOP_STATE_IDLE
    return Content(messages, values, state.SerializeToString(deterministic=True))


def put_together(found: Restored, agent_id: str) -> AgentState:
    """The state that was stored.

    Raises:
        CorruptData: the stored bytes are not an AgentState.
    """
    try:
        state = AgentState.FromString(found.state or b"")
    except DecodeError as error:
        number = found.revision.revision
        raise CorruptData(f"revision {number}: stored data is damaged", {"revision": str(number)}) from error
    state.agent_id = agent_id
    return state


def _check(state: AgentState) -> None:
    fields.known("snapshot.loop_state", state.loop_state, LOOP_STATES)
    fields.length("snapshot.llm_provider", state.llm_provider)
    if state.HasField("created_at"):
        fields.timestamp("snapshot.created_at", state.created_at)
    if state.HasField("auth_context"):
        _check_auth(state.auth_context)
    if len(state.values) > MAX_VALUES:
        raise InvalidField("snapshot.values", f"at most {MAX_VALUES} entries", len(state.values))
    for name, payload in state.values.items():
        fields.name("snapshot.values key", name)
        fields.length(f"snapshot.values[{name!r}].content_type", payload.content_type)
    for index, message in enumerate(state.message_history):
        _check_message(index, message)


def _check_auth(auth: AuthContext) -> None:
    fields.optional_name("snapshot.auth_context.type", auth.type)


def _check_message(index: int, message: Message) -> None:
    # Runs for every message of every snapshot: the path is made only where it is needed.
    if message.role not in ROLES:
        fields.known(f"{_path(index)}.role", message.role, ROLES)
    if len(message.message_id) > fields.NAME_LENGTH:
        fields.length(f"{_path(index)}.message_id", message.message_id)
    if message.HasField("create_time"):
        fields.timestamp(f"{_path(index)}.create_time", message.create_time)
    if message.HasField("payload") and len(message.payload.content_type) > fields.NAME_LENGTH:
        fields.length(f"{_path(index)}.payload.content_type", message.payload.content_type)


def _path(index: int) -> str:
    return f"snapshot.message_history[{index}]"


def _value(state: AgentState, name: str) -> bytes:
    alone = AgentState()
    alone.values[name].CopyFrom(state.values[name])
    return alone.SerializeToString(deterministic=True)
