"""What happened to sessions, in the order of the log; and what those who watch it need of it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import IntEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from session_service.sessions.model import Tenant


class EventType(IntEnum):
    """What can happen; the numbers of the log and of agent_sessions.v1.EventType."""

    SAVED = 1
    RESTORED = 2
    DELETED = 3
    UNDELETED = 4


class Position(NamedTuple):
    """A place in the log: after the event that has these. They compare in the order of the log."""

    xid: int
    """Number of the transaction that wrote the event."""
    seq: int


LAST_SEQ = (1 << 63) - 1
START = Position(0, 0)
"""Before all events."""


class Place(NamedTuple):
    """Where in the log of which cluster."""

    system_identifier: int
    """The PostgreSQL cluster's."""
    timeline: int
    """Of that cluster's write-ahead log: another one after each failover, and after a recovery to an earlier point."""
    position: Position


class LogIdentity(NamedTuple):
    """Which log it is that a connection reads."""

    system_identifier: int
    timeline: int
    starts: tuple[tuple[int, Position], ...]
    """Of each later timeline: up to where positions of the ones before are good."""
    secret: bytes
    """Signs resume tokens."""


class Event(NamedTuple):
    """One row of the log."""

    position: Position
    type: int
    tenant_id: int
    agent_id: str
    session_name: str
    revision: int
    create_time: datetime
    event_id: UUID
    request_id: UUID
    client_id: str
    actor: str


class EventFilter(NamedTuple):
    """Which events are wanted."""

    types: frozenset[int]
    """An empty one wants none."""
    tenant: Tenant | None = None
    """None: of all tenants; for the feed alone."""
    agent_id: str = ""
    """Empty: of all agents."""
    session_name: str = ""
    """Empty: of all sessions."""


class LogPage(NamedTuple):
    """What one statement saw of the log."""

    identity: LogIdentity
    events: Sequence[Event]
    """In order."""
    end: Position
    """All events up to here have been seen. Never before the place asked for, and never further than an event is: see
    `_page` of the PostgreSQL log."""
    is_last: bool
    """Whether there is nothing more to read up to the watermark, or up to where was asked."""
    has_grown: bool
    """Whether there were events after the place asked for, wanted or not."""
    is_held_back: bool
    """Whether there are events of these types that cannot be read yet, because an older transaction is running; as far
    as the first of what is held back tells."""
    horizon: Position
    """Everything up to here has been trimmed: a reader that has not come so far has missed events."""
    xmin: int
    """Of the statement's snapshot: the oldest transaction that was running, or the next one's number."""
    xmax: int
    """Of the snapshot: higher than that of any transaction that had ended. A tail's: of those that logged events."""
    running: frozenset[int]
    """Of the snapshot: the transactions from xmin on that were running."""
    is_older: bool = False
    """Whether the log had not come as far as the place asked for when its connection was made: an old copy of the
    database is in its place."""

    def saw(self, position: Position) -> bool:
        """Whether an event at that place had been committed when the snapshot was taken."""
        return position.xid < self.xmax and position.xid not in self.running


class EventLog(Protocol):
    """The log, over a connection of its own. Every method may raise DatabaseUnavailable."""

    async def read(self, after: Position, wanted: EventFilter, up_to: Position | None = None) -> LogPage:
        """The next events after a place, not beyond `up_to`; perhaps none of many that were looked at."""

    async def tail(self) -> LogPage:
        """A page without events, whose end is the last event up to the watermark."""

    async def keep_watermark(self, identity: LogIdentity, position: Position) -> None:
        """Writes down that everything up to here was read, for those who come after a failover."""


class Delivery:
    """One message of a watch. Watchers of the same event share it."""

    __slots__ = ("event", "is_first", "resume_token", "wire")

    def __init__(self, resume_token: bytes, event: Event | None = None, *, is_first: bool = False) -> None:
        self.resume_token = resume_token
        self.event = event
        """None: a bookmark, or the first message."""
        self.is_first = is_first
        self.wire: bytes | None = None
        """For whoever sends it: as it was encoded for the first watcher."""


class EventWatcher(Protocol):
    """Gives out events as they come."""

    def watch(self, wanted: EventFilter, resume_token: bytes) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """The messages of a watch, from the token on, or from now on if it is empty. They do not end.

        A watch in which one message is being worked on for too long is ended, from within the block.

        Raises, on entering the block, within it, or from the messages:
            InvalidResumeToken, CursorExpired, TooManyWatches, SlowWatcher, ShuttingDown, DatabaseUnavailable.
        """
