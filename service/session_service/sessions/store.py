"""What the use cases need of a store. PostgreSQL is one; the tests keep another in memory."""

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import Protocol

from session_service.sessions.model import (
    Change,
    Download,
    Restored,
    Revision,
    RevisionQuery,
    Save,
    Saved,
    Session,
    SessionKey,
    SessionQuery,
    Target,
    Tenant,
)


class NameTaken(Exception):
    """The name that the server suggested for a new session exists; suggest another."""


class Upload(Protocol):
    """A state that is being stored piece by piece. Nobody sees any of it before finish() has returned."""

    async def add(self, messages: Sequence[bytes]) -> None:
        """Take messages, encoded, after those that came before.

        Raises:
            Contention: the upload's time is over.
        """

    async def finish(self, save: Save, now: datetime) -> Saved:
        """Stores the revision; save.content has all but the messages. Raises: what SessionStore.save raises."""


class SessionStore(Protocol):
    """Keeps sessions. Every method may raise DatabaseUnavailable or Contention; each is one atomic step."""

    async def tenant(self, name: str) -> Tenant:
        """The tenant of that name. Raises: LookupError if there is none."""

    def save(self, save: Save, now: datetime) -> Awaitable[Saved]:
        """Stores a revision, or finds the one that the same request_id stored.

        To be awaited. No coroutine, so that a store may answer with a future: most saves need no task of their own.

        Raises, when awaited:
            RequestIdReused, SessionDeleted, RevisionMismatch, UserIdMismatch, CheckpointIdExists: in this order of
                precedence; nothing is stored.
            NameTaken: save.server_named, and the name exists.
        """

    def save_many(self, saves: Sequence[Save], now: datetime) -> Sequence[Awaitable[Saved]]:
        """Begins many saves, in this order; each then ends by itself, as by save()."""

    async def begin_upload(self, save: Save) -> Upload:
        """Begins to store a state whose messages come piece by piece; save.content has all the rest.

        It need not be ended: what one leaves behind that is not finished is removed some time later.
        """

    async def restore(self, change: Change, target: Target, message_limit: int, now: datetime) -> Restored:
        """Reads a revision's state and records a RESTORED event.

        Raises:
            SessionNotFound, RevisionNotFound, SessionDeleted, RequestIdReused, StateTooLarge, CorruptData: nothing is
                recorded.
        """

    async def download(
        self, change: Change, target: Target, message_limit: int, now: datetime, *, recorded: bool
    ) -> Download:
        """Begins to read a revision's state piece by piece; records a RESTORED event now, if it is to be recorded.

        Raises:
            SessionNotFound, RevisionNotFound, SessionDeleted, RequestIdReused: nothing is recorded. Not
                SessionDeleted, if nothing is to be recorded.
            CorruptData: as far as damage shows so early. The parts may raise it later.
        """

    async def delete(self, change: Change, *, purge: bool, now: datetime) -> Session:
        """Hides a session, or removes it for good.

        Raises:
            SessionNotFound, SessionDeleted (without purge), RevisionMismatch, RequestIdReused: nothing is changed.
        """

    async def undelete(self, change: Change, now: datetime) -> Session:
        """Brings a hidden session back.

        Raises:
            SessionNotFound, SessionNotDeleted, RevisionMismatch, RequestIdReused: nothing is changed.
        """

    async def get_session(self, key: SessionKey) -> Session:
        """Raises: SessionNotFound."""

    async def get_revision(self, key: SessionKey, target: Target, *, with_state: bool, message_limit: int) -> Restored:
        """Raises: SessionNotFound, RevisionNotFound, StateTooLarge, CorruptData."""

    async def list_sessions(self, query: SessionQuery) -> Sequence[Session]:
        """At most query.page_size sessions after query.after."""

    async def list_revisions(self, query: RevisionQuery) -> Sequence[Revision]:
        """At most query.page_size revisions after query.after. Raises: SessionNotFound."""
