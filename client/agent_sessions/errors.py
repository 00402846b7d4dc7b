"""Everything that a call of this library can raise, as one tree.

    AgentSessionsError
    ├── SessionServiceError                 a call failed; by status code:
    │   ├── InvalidRequest
    │   │   ├── InvalidField                .field
    │   │   ├── UndecodableRequest
    │   │   ├── AgentIdMismatch
    │   │   ├── InvalidPageToken
    │   │   ├── InvalidResumeToken
    │   │   └── RequestIdReused
    │   ├── NotFound
    │   │   ├── SessionNotFound
    │   │   └── RevisionNotFound
    │   ├── AlreadyExists
    │   │   ├── CheckpointIdExists
    │   │   └── SessionNotDeleted
    │   ├── FailedPrecondition
    │   │   ├── SessionDeleted
    │   │   ├── UserIdMismatch
    │   │   └── BaseRevisionNotFound
    │   ├── Aborted
    │   │   ├── RevisionMismatch            .current_revision, .expected_revision
    │   │   └── Serialization
    │   ├── ResourceExhausted
    │   │   ├── MessageTooLarge             .limit, .actual
    │   │   ├── StateTooLarge               .limit, .actual
    │   │   ├── TooManyTransfers
    │   │   ├── TooManyWatches
    │   │   └── SlowWatcher
    │   ├── OutOfRange
    │   │   └── CursorExpired               .oldest_resume_token
    │   ├── Unavailable
    │   │   ├── DatabaseUnavailable
    │   │   └── ShuttingDown
    │   ├── DeadlineExceeded                .last_error; a TimeoutError, too
    │   │   └── TransferStalled
    │   ├── DataLoss
    │   │   └── CorruptData                 .revision
    │   ├── Unimplemented
    │   │   └── MethodNotFound
    │   ├── PermissionDenied
    │   ├── Unauthenticated
    │   └── InternalError
    ├── ClientClosed                        a call on a closed client
    └── StateError                          a state cannot be encoded or decoded; .path
        ├── UnsupportedValue                a TypeError, too
        ├── NotRegistered                   .name; a LookupError, too
        └── MalformedPayload                a ValueError, too

A SessionServiceError that ended a call has gRPC's own exception as `__cause__`;
one that answers a save in a stream has none.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from grpc import StatusCode


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that breaks a rule."""

    field: str
    """Path of the field in the request, for example `snapshot.message_history[3].role`."""
    description: str
    """The rule and what was given."""


@dataclass(frozen=True, slots=True)
class PreconditionViolation:
    """One thing that is in the wrong state for the call."""

    type: str
    subject: str
    """What it is, for example `agents/a/sessions/s`."""
    description: str


class AgentSessionsError(Exception):
    """Base of everything this library raises on purpose."""


class SessionServiceError(AgentSessionsError):
    """A call failed. This class itself stands for status codes without a subclass."""

    default_code: ClassVar[StatusCode] = StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        code: StatusCode | None = None,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        field_violations: Sequence[FieldViolation] = (),
        precondition_violations: Sequence[PreconditionViolation] = (),
        retry_delay: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """For people; may change. Programs look at the class, or at reason and metadata."""
        self.code: StatusCode = code or self.default_code
        """The gRPC status code."""
        self.reason = reason
        """The server's stable reason, for example `SESSION_NOT_FOUND`; empty when no server answered."""
        self.metadata: Mapping[str, str] = dict(metadata or {})
        """Facts that belong to the reason."""
        self.field_violations = tuple(field_violations)
        """The fields of the request that break a rule."""
        self.precondition_violations = tuple(precondition_violations)
        """What is in the wrong state."""
        self.retry_delay = retry_delay
        """Seconds the server asks to wait before another attempt; None when it does not say."""

    def _number(self, key: str) -> int | None:
        text = self.metadata.get(key, "")
        return int(text) if text.isascii() and text.isdigit() else None


class InvalidRequest(SessionServiceError):
    """The request can never succeed as it is."""

    default_code = StatusCode.INVALID_ARGUMENT


class InvalidField(InvalidRequest):
    """A field of the request breaks a rule."""

    @property
    def field(self) -> str:
        """Path of the (first) field; empty when the server did not tell."""
        if self.field_violations:
            return self.field_violations[0].field
        return self.metadata.get("field", "")


class UndecodableRequest(InvalidRequest):
    """The server could not read the request's bytes."""


class AgentIdMismatch(InvalidRequest):
    """The state names another agent than the call."""


class InvalidPageToken(InvalidRequest):
    """The page token does not belong to these arguments."""


class InvalidResumeToken(InvalidRequest):
    """The resume token was not made by this service."""


class RequestIdReused(InvalidRequest):
    """The request_id was used before, for a request with other content."""


class NotFound(SessionServiceError):
    """What the call names does not exist."""

    default_code = StatusCode.NOT_FOUND


class SessionNotFound(NotFound):
    """The agent has no session of that name."""


class RevisionNotFound(NotFound):
    """The session has no such revision, or none with that checkpoint_id."""


class AlreadyExists(SessionServiceError):
    """What the call would make is there already."""

    default_code = StatusCode.ALREADY_EXISTS


class CheckpointIdExists(AlreadyExists):
    """Another revision of the session has that checkpoint_id."""


class SessionNotDeleted(AlreadyExists):
    """An undelete of a session that is not deleted."""


class FailedPrecondition(SessionServiceError):
    """The session is in a state that does not allow this."""

    default_code = StatusCode.FAILED_PRECONDITION


class SessionDeleted(FailedPrecondition):
    """The session is soft-deleted."""


class UserIdMismatch(FailedPrecondition):
    """The session belongs to another user_id."""


class BaseRevisionNotFound(FailedPrecondition):
    """What a delta is based on does not exist, or is another session's. A Session sends a snapshot by itself then."""


class Aborted(SessionServiceError):
    """Somebody else came first."""

    default_code = StatusCode.ABORTED


class RevisionMismatch(Aborted):
    """expected_revision is not the session's newest revision."""

    @property
    def current_revision(self) -> int | None:
        """The newest revision; 0 when there is no such session; None when the server did not tell."""
        return self._number("current_revision")

    @property
    def expected_revision(self) -> int | None:
        """What the call expected; None when the server did not tell."""
        return self._number("expected_revision")


class Serialization(Aborted):
    """Others change the same session without pause. Raised only after retries did not help."""


class ResourceExhausted(SessionServiceError):
    """A limit is reached."""

    default_code = StatusCode.RESOURCE_EXHAUSTED


class _TooLarge(ResourceExhausted):
    @property
    def limit(self) -> int | None:
        """The limit in bytes; None when the server did not tell."""
        return self._number("limit")

    @property
    def actual(self) -> int | None:
        """The size in bytes, as far as it was seen; None when the server did not tell."""
        return self._number("actual")


class MessageTooLarge(_TooLarge):
    """The request is larger than the server takes. Of a large state: its values, or one of its messages."""


class StateTooLarge(_TooLarge):
    """The state is larger than the server keeps. One that it does not return at once is fetched in pieces instead."""


class TooManyTransfers(ResourceExhausted):
    """The server has too many large states on their way. Raised only after retries did not help."""


class TooManyWatches(ResourceExhausted):
    """The server has as many watches as it takes. A Watch tries again by itself."""


class SlowWatcher(ResourceExhausted):
    """The watch did not keep up and was ended by the server. A Watch goes on by itself where it was."""


class OutOfRange(SessionServiceError):
    """What the call asks for is not there any more."""

    default_code = StatusCode.OUT_OF_RANGE


class CursorExpired(OutOfRange):
    """Events after the resume token are not kept any more. Read what you need anew, then watch from the oldest one."""

    @property
    def oldest_resume_token(self) -> bytes:
        """The oldest token that would do; empty (from now on) when the server did not tell."""
        try:
            return base64.b64decode(self.metadata.get("oldest_resume_token", ""), validate=True)
        except ValueError:
            return b""


class Unavailable(SessionServiceError):
    """No server can be reached, or it cannot serve now. Raised only after retries did not help."""

    default_code = StatusCode.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """The server has lost its database."""


class ShuttingDown(Unavailable):
    """The server is about to stop."""


class DeadlineExceeded(SessionServiceError, TimeoutError):
    """The call's timeout passed. What the call was to change may have happened all the same."""

    default_code = StatusCode.DEADLINE_EXCEEDED
    last_error: SessionServiceError | None = None
    """Why the attempt before failed, if there was one: for example Unavailable."""

    def __str__(self) -> str:
        if self.last_error is None:
            return self.message
        return f"{self.message}; before that, {self.last_error.code.name}: {self.last_error}"


class TransferStalled(DeadlineExceeded):
    """The server ended the sending or fetching of a large state, because this side paused, or took, for too long."""


class DataLoss(SessionServiceError):
    """Stored data is lost."""

    default_code = StatusCode.DATA_LOSS


class CorruptData(DataLoss):
    """A row that the revision needs is damaged or missing. A save with self_contained heals the head."""

    @property
    def revision(self) -> int | None:
        """The revision that cannot be read; None when the server did not tell."""
        return self._number("revision")


class Unimplemented(SessionServiceError):
    """The server does not offer this."""

    default_code = StatusCode.UNIMPLEMENTED


class MethodNotFound(Unimplemented):
    """The server does not know this method."""


class PermissionDenied(SessionServiceError):
    """The caller may not do this."""

    default_code = StatusCode.PERMISSION_DENIED


class Unauthenticated(SessionServiceError):
    """The server does not know who calls."""

    default_code = StatusCode.UNAUTHENTICATED


class InternalError(SessionServiceError):
    """A defect of the server, or of the transport."""

    default_code = StatusCode.INTERNAL


class ClientClosed(AgentSessionsError, RuntimeError):
    """A call on a client that was closed."""


class StateError(AgentSessionsError):
    """A state cannot be encoded or decoded."""

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem, path)
        self.problem = problem
        """What is wrong."""
        self.path = path
        """Where, for example `messages[3].usage['tokens']`."""

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class UnsupportedValue(StateError, TypeError):
    """A value that could not be stored exactly is refused."""


class NotRegistered(StateError, LookupError):
    """An enum member, class or module that was not registered with the codec."""

    def __init__(self, name: str, path: str = "") -> None:
        super().__init__(f"{name} is not registered; call StateCodec.register with the object", path)
        self.args = (name, path)
        self.name = name
        """The dotted name."""


class MalformedPayload(StateError, ValueError):
    """Stored bytes are not what their content type says."""
