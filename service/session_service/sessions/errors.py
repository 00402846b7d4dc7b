"""Everything that can go wrong with a session, as one tree.

    SessionServiceError
    ├── InvalidRequest
    │   ├── InvalidField
    │   ├── AgentIdMismatch
    │   ├── InvalidPageToken
    │   ├── InvalidResumeToken
    │   └── RequestIdReused
    ├── NotFound
    │   ├── SessionNotFound
    │   └── RevisionNotFound
    ├── AlreadyExists
    │   ├── CheckpointIdExists
    │   └── SessionNotDeleted
    ├── Precondition
    │   ├── SessionDeleted
    │   ├── UserIdMismatch
    │   └── BaseRevisionNotFound
    ├── RevisionMismatch
    ├── MessageTooLarge
    ├── StateTooLarge
    ├── TransferStalled
    ├── CorruptData
    ├── CursorExpired
    └── Unavailable
        ├── DatabaseUnavailable
        ├── ShuttingDown
        ├── TooManyTransfers
        ├── TooManyWatches
        ├── SlowWatcher
        └── Contention

`metadata` and the message reach the caller, so neither holds SQL, driver text
or anything of another caller's.
"""

from collections.abc import Mapping


class SessionServiceError(Exception):
    """Base of all errors of this service that a caller may see."""

    def __init__(self, message: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: Mapping[str, str] = metadata or {}
        """Machine-readable facts, for example the current revision."""


class InvalidRequest(SessionServiceError):
    """The request can never succeed as it is."""


class InvalidField(InvalidRequest):
    """One field of the request breaks a rule. The message names field, limit and value."""

    def __init__(self, field: str, rule: str, value: object = None) -> None:
        shown = "" if value is None else f", got {_shorten(value)}"
        super().__init__(f"{field}: {rule}{shown}", {"field": field})
        self.field = field
        """Path of the field in the request, for example `snapshot.message_history[3].role`."""
        self.description = f"{rule}{shown}"


class AgentIdMismatch(InvalidRequest):
    """The snapshot names another agent than the request."""


class InvalidPageToken(InvalidRequest):
    """The page token was not made by this service for these arguments."""


class InvalidResumeToken(InvalidRequest):
    """The resume token was not made by this service."""


class RequestIdReused(InvalidRequest):
    """The request_id was used before, for a request with other content."""


class NotFound(SessionServiceError):
    """What the request names does not exist in the caller's tenant."""


class SessionNotFound(NotFound):
    """There is no session of that name."""


class RevisionNotFound(NotFound):
    """The session has no such revision, or none with that checkpoint_id."""


class AlreadyExists(SessionServiceError):
    """What the request would make is there already."""


class CheckpointIdExists(AlreadyExists):
    """Another revision of the session has that checkpoint_id."""


class SessionNotDeleted(AlreadyExists):
    """An undelete of a session that is not deleted."""


class Precondition(SessionServiceError):
    """The session is in a state that does not allow this."""

    def __init__(self, message: str, subject: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message, metadata)
        self.subject = subject
        """What is in the wrong state, for example `agents/a/sessions/s`."""


class SessionDeleted(Precondition):
    """The session is soft-deleted."""


class UserIdMismatch(Precondition):
    """The session belongs to another user_id."""


class BaseRevisionNotFound(Precondition):
    """A delta's base does not exist, or is another's: send a snapshot. Metadata: base_revision, current_revision."""


class RevisionMismatch(SessionServiceError):
    """expected_revision is not the head. Metadata: expected_revision, current_revision."""


class MessageTooLarge(SessionServiceError):
    """The request is larger than a limit. Metadata: limit, actual (bytes)."""


class StateTooLarge(SessionServiceError):
    """The state is larger than a limit. Metadata: limit, actual (bytes; of an upload, what had come until then)."""


class TransferStalled(SessionServiceError):
    """An upload or download was ended: its caller paused, or took, for too long. Metadata: limit (seconds)."""


class CorruptData(SessionServiceError):
    """A stored row that the revision needs is damaged or missing. Metadata: revision."""


class CursorExpired(SessionServiceError):
    """Events after that resume token are not kept any more. Metadata: oldest_resume_token (base64)."""


class Unavailable(SessionServiceError):
    """Not now; the same call may succeed later."""

    retry_after = 0.5
    """Seconds a client should wait before it tries again."""


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be reached, or did not answer in time."""


class ShuttingDown(Unavailable):
    """This server is draining; another one will answer."""

    retry_after = 0.1


class TooManyTransfers(Unavailable):
    """All memory for uploads and downloads is taken. Metadata: limit (bytes)."""

    retry_after = 1.0


class TooManyWatches(Unavailable):
    """This server has as many watches as it may have. Metadata: limit."""

    retry_after = 1.0


class SlowWatcher(Unavailable):
    """A watch was ended because its caller does not keep up; it can go on with its last token."""

    retry_after = 1.0


class Contention(Unavailable):
    """Others change the same session without pause, or hold its lock."""

    retry_after = 0.05


def _shorten(value: object, limit: int = 64) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
