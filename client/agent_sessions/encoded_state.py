"""A state as the bytes of its parts, what changed between two of them, and both as requests carry them.

Each message is encoded once; its bytes are its fingerprint, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.wire import bytes_tag, embedded, number_tag, varint

_MESSAGE_HISTORY = bytes_tag(pb.AgentState.MESSAGE_HISTORY_FIELD_NUMBER)
_VALUES = bytes_tag(pb.AgentState.VALUES_FIELD_NUMBER)
_BASE_REVISION = number_tag(pb.StateDelta.BASE_REVISION_FIELD_NUMBER)
_BASE_ETAG = bytes_tag(pb.StateDelta.BASE_ETAG_FIELD_NUMBER)
_TRUNCATE_TO = number_tag(pb.StateDelta.TRUNCATE_TO_FIELD_NUMBER)
_APPENDED = bytes_tag(pb.StateDelta.APPENDED_MESSAGES_FIELD_NUMBER)
_SET_VALUES = bytes_tag(pb.StateDelta.SET_VALUES_FIELD_NUMBER)
_REMOVE_VALUES = bytes_tag(pb.StateDelta.REMOVE_VALUES_FIELD_NUMBER)

_KEY, _VALUE = bytes_tag(1), bytes_tag(2)
"""Of a map's entry."""

_TAKEN_APART = ("agent_id", "message_history", "values", "loop_state", "llm_provider", "auth_context")


@dataclass(frozen=True, slots=True)
class SmallFields:
    """What every save tells anew."""

    loop_state: int = pb.LOOP_STATE_IDLE
    llm_provider: str = ""
    auth_type: str | None = None
    """None: no authentication context."""
    in_snapshot: bytes = field(init=False, repr=False, compare=False)
    """As fields of an AgentState."""
    in_delta: bytes = field(init=False, repr=False, compare=False)
    """As fields of a StateDelta."""

    def __post_init__(self) -> None:
        """Encode both forms: they change seldom, and are sent with every save."""
        auth = None if self.auth_type is None else pb.AuthContext(type=self.auth_type)
        for name, message in (("in_snapshot", pb.AgentState()), ("in_delta", pb.StateDelta())):
            message.loop_state = self.loop_state  # type: ignore[assignment]  # numbers of later versions pass
            message.llm_provider = self.llm_provider
            if auth is not None:
                message.auth_context.CopyFrom(auth)
            object.__setattr__(self, name, message.SerializeToString(deterministic=True))


class Change(NamedTuple):
    """What leads from one state to the next."""

    small: SmallFields
    appended: Sequence[bytes]
    truncate_to: int | None
    """Keep only so many messages; None: all."""
    set_values: Mapping[str, bytes]
    remove_values: Sequence[str]

    def as_delta(self, base: bytes) -> bytes:
        """Encode it as a StateDelta; see `encode_delta`."""
        return encode_delta(base, self.small, self.appended, self.set_values, self.remove_values, self.truncate_to)


def encode_base(revision: int, etag: str) -> bytes:
    """Encode what a delta is based on, as fields of a StateDelta."""
    encoded = etag.encode()
    return b"".join((_BASE_REVISION, varint(revision), _BASE_ETAG, varint(len(encoded)), encoded))


def encode_delta(
    base: bytes,
    small: SmallFields,
    appended: Sequence[bytes],
    set_values: Mapping[str, bytes],
    remove_values: Sequence[str],
    truncate_to: int | None = None,
) -> bytes:
    """Encode a StateDelta.

    - base: as `encode_base` returns it; empty: there is none.
    - The others: as in a Change.
    """
    pieces = [small.in_delta, base]
    if truncate_to is not None:
        pieces += (_TRUNCATE_TO, varint(truncate_to))
    for message in appended:
        pieces += (_APPENDED, varint(len(message)), message)
    if set_values:
        pieces += [embedded(_SET_VALUES, _entry(name, value)) for name, value in set_values.items()]
    if remove_values:
        pieces += [embedded(_REMOVE_VALUES, name.encode()) for name in remove_values]
    return b"".join(pieces)


@dataclass(slots=True)
class EncodedState:
    """A state, taken apart."""

    messages: list[bytes] = field(default_factory=list)
    values: dict[str, bytes] = field(default_factory=dict)
    small: SmallFields = field(default_factory=SmallFields)
    rest: bytes = b""
    """created_at, and fields that this version does not know. Only a snapshot can change them."""

    @classmethod
    def of(cls, state: pb.AgentState) -> "EncodedState":
        """Take a state apart. Uses it up."""
        taken = cls(
            [message.SerializeToString(deterministic=True) for message in state.message_history],
            {name: value.SerializeToString(deterministic=True) for name, value in state.values.items()},
            SmallFields(
                state.loop_state,
                state.llm_provider,
                state.auth_context.type if state.HasField("auth_context") else None,
            ),
        )
        for name in _TAKEN_APART:
            state.ClearField(name)
        taken.rest = state.SerializeToString(deterministic=True)
        return taken

    def as_snapshot(self) -> list[bytes]:
        """Encode it as an AgentState without agent_id, in pieces."""
        pieces = self.without_messages()
        for message in self.messages:
            pieces += (_MESSAGE_HISTORY, varint(len(message)), message)
        return pieces

    def without_messages(self) -> list[bytes]:
        """Encode the rest, likewise."""
        values = [embedded(_VALUES, _entry(name, value)) for name, value in self.values.items()]
        return [self.rest, self.small.in_snapshot, *values]

    def change_to(self, later: "EncodedState") -> Change | None:
        """Return what leads to `later`; None: only a snapshot does."""
        if self.rest != later.rest:
            return None
        kept = _common_prefix(self.messages, later.messages)
        return Change(
            later.small,
            later.messages[kept:],
            None if kept == len(self.messages) else kept,
            {name: value for name, value in later.values.items() if self.values.get(name) != value},
            [name for name in self.values if name not in later.values],
        )

    def append(
        self,
        small: SmallFields,
        messages: Sequence[bytes],
        set_values: Mapping[str, bytes],
        remove_values: Sequence[str],
    ) -> None:
        """Make a change that only adds messages; costs what is new, not what is there."""
        self.small = small
        self.messages += messages
        if remove_values:
            for name in remove_values:
                self.values.pop(name, None)
        if set_values:
            self.values |= set_values

    def copy(self) -> "EncodedState":
        """Return one that changes by itself."""
        return EncodedState([*self.messages], {**self.values}, self.small, self.rest)


def _common_prefix(old: list[bytes], new: list[bytes]) -> int:
    if new[: len(old)] == old:  # the usual case, at the speed of memcmp
        return len(old)
    return next((place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))


def _entry(name: str, value: bytes) -> bytes:
    """Encode an entry of a map."""
    return embedded(_KEY, name.encode()) + embedded(_VALUE, value)
