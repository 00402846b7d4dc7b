"""What a session is: plain, immutable values that every layer may hold.

Contents are bytes that the domain never parses. Three kinds of wire fragment
put together, in any order, are the protobuf form of an AgentState: the framed
messages, the values, and all other fields. So a state is restored by joining
bytes.

What every save makes is a NamedTuple: a frozen dataclass takes several times as
long to make, and a save makes a dozen of them.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

NO_ENTRIES: Mapping[str, str] = MappingProxyType({})
"""No labels, no metadata."""


MAX_VALUES = 1000
"""Named values in a state."""


class Tenant(NamedTuple):
    """Who owns data."""

    tenant_id: int
    name: str
    digest_secret: bytes
    """Keys every digest, so that equal texts of two tenants do not show. Never leaves the server."""


class SessionKey(NamedTuple):
    """How a session is found."""

    tenant: Tenant
    agent_id: str
    session_name: str

    def __str__(self) -> str:
        return f"agents/{self.agent_id}/sessions/{self.session_name}"


class Content(NamedTuple):
    """An agent's complete state, as encoded pieces."""

    messages: Sequence[bytes]
    """Every message, encoded, oldest first."""
    values: Mapping[str, bytes]
    """By name: a fragment of AgentState's wire form that holds this one value."""
    small: bytes
    """A fragment of AgentState's wire form: the fields that every save gives anew
    (loop_state, llm_provider, auth_context)."""
    kept: bytes
    """A fragment of AgentState's wire form: all other fields; a delta keeps its base's."""


class Delta(NamedTuple):
    """What changed since a base revision, as encoded pieces."""

    base_revision: int
    """0: the empty state."""
    base_etag: str
    """Empty: not checked."""
    truncate_to: int | None
    """Keep only the first so many messages of the base; None: all."""
    appended: Sequence[bytes]
    """Messages after those that are kept."""
    set_values: Mapping[str, bytes]
    """As Content.values."""
    remove_values: Sequence[str]
    small: bytes
    """As Content.small."""


class Session(NamedTuple):
    """A session as lists show it. Only a repeated purge leaves uid and the first two times None."""

    session_id: int
    agent_id: str
    session_name: str
    uid: UUID | None
    user_id: str
    head_revision: int
    message_count: int
    size_bytes: int
    labels: Mapping[str, str]
    create_time: datetime | None
    update_time: datetime | None
    last_restore_time: datetime | None
    delete_time: datetime | None


class Revision(NamedTuple):
    """A revision as lists show it."""

    revision: int
    etag: str
    parent_revision: int
    checkpoint_id: str
    message_count: int
    size_bytes: int
    create_time: datetime
    metadata: Mapping[str, str]


class Save(NamedTuple):
    """One save as the caller asked for it; absent values are None."""

    tenant: Tenant
    agent_id: str
    session_name: str
    """Empty: the server makes a name."""
    content: Content | Delta
    actor: str
    expected_revision: int | None = None
    request_id: UUID | None = None
    client_id: str = ""
    user_id: str = ""
    labels: Mapping[str, str] | None = None
    checkpoint_id: str = ""
    metadata: Mapping[str, str] = NO_ENTRIES
    self_contained: bool = False
    server_named: bool = False
    """The session_name is a suggestion of this server's, not the caller's."""


class Saved(NamedTuple):
    """What a save did."""

    session: Session
    revision: Revision
    replayed: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Which revision of a session: by number, by checkpoint_id, or (neither) the head."""

    revision: int | None = None
    checkpoint_id: str = ""


@dataclass(frozen=True, slots=True)
class Restored:
    """A revision and, if asked for, the wire form of its AgentState (without agent_id)."""

    session: Session
    revision: Revision
    pieces: Sequence[bytes | memoryview] | None
    """What the wire form is joined from. Whoever puts more around it joins all at once, and copies megabytes once."""

    @property
    def state(self) -> bytes | None:
        """The wire form."""
        return None if self.pieces is None else b"".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Download:
    """A revision, and its state piece by piece."""

    session: Session
    revision: Revision
    state: bytes
    """A fragment of AgentState's wire form: all but messages and big values."""
    parts: AsyncGenerator[bytes, None]
    """The rest, in fragments of about a MiB or one larger value or message: values, then messages in their order.

    Raises: CorruptData; SessionNotFound and RevisionNotFound, if it is removed meanwhile.
    """


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes a session without saving: restore, delete, undelete."""

    key: SessionKey
    actor: str
    request_id: UUID | None = None
    client_id: str = ""
    expected_revision: int | None = None


class SessionOrder(Enum):
    """What a list of sessions is sorted by; ties are broken by session_id."""

    CREATE_TIME = "create_time"
    UPDATE_TIME = "update_time"
    NAME = "name"


@dataclass(frozen=True, slots=True)
class SessionQuery:
    """A page of sessions: all filters given must hold."""

    tenant: Tenant
    agent_id: str
    """Empty: every agent of the tenant."""
    page_size: int
    after: tuple[datetime | str, int] | None = None
    """Sort key and session_id of the last row of the previous page."""
    order: SessionOrder = SessionOrder.CREATE_TIME
    descending: bool = True
    user_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    name_prefix: str = ""
    show_deleted: bool = False


@dataclass(frozen=True, slots=True)
class RevisionQuery:
    """A page of a session's revisions."""

    key: SessionKey
    page_size: int
    after: int | None = None
    """Number of the last revision of the previous page."""
    descending: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)
