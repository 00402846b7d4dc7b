"""Errors as a caller sees them: ONE table from exceptions to statuses and reasons.

What the table does not know becomes INTERNAL without a word of its own text.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent_sessions.v1.session_service_pb2 import SaveError
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from session_service.sessions import errors

DOMAIN = "agent_sessions"
"""The domain of every google.rpc.ErrorInfo."""
_TEXT_LIMIT = 600
"""Bytes of one text in an error. All trailing metadata must fit into about 8 KiB, and a
message travels twice, once with up to three bytes for each of its own."""
_METADATA_LIMIT = 8
"""Entries of ErrorInfo.metadata."""


class UndecodableRequest(errors.InvalidRequest):
    """The bytes of the request are not the message that the method takes."""


class MethodNotFound(errors.SessionServiceError):
    """There is no such method."""


class DeadlineExceeded(errors.SessionServiceError):
    """The caller's deadline has passed."""


TABLE: Mapping[type[Exception], tuple[StatusCode, str]] = {
    errors.InvalidField: (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    UndecodableRequest: (StatusCode.INVALID_ARGUMENT, "UNDECODABLE_REQUEST"),
    errors.AgentIdMismatch: (StatusCode.INVALID_ARGUMENT, "AGENT_ID_MISMATCH"),
    errors.InvalidPageToken: (StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"),
    errors.InvalidResumeToken: (StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN"),
    errors.RequestIdReused: (StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED"),
    errors.SessionNotFound: (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"),
    errors.RevisionNotFound: (StatusCode.NOT_FOUND, "REVISION_NOT_FOUND"),
    errors.CheckpointIdExists: (StatusCode.ALREADY_EXISTS, "CHECKPOINT_ID_EXISTS"),
    errors.SessionNotDeleted: (StatusCode.ALREADY_EXISTS, "SESSION_NOT_DELETED"),
    errors.SessionDeleted: (StatusCode.FAILED_PRECONDITION, "SESSION_DELETED"),
    errors.UserIdMismatch: (StatusCode.FAILED_PRECONDITION, "USER_ID_MISMATCH"),
    errors.BaseRevisionNotFound: (StatusCode.FAILED_PRECONDITION, "BASE_REVISION_NOT_FOUND"),
    errors.RevisionMismatch: (StatusCode.ABORTED, "REVISION_MISMATCH"),
    errors.Contention: (StatusCode.ABORTED, "SERIALIZATION"),
    errors.MessageTooLarge: (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"),
    errors.StateTooLarge: (StatusCode.RESOURCE_EXHAUSTED, "STATE_TOO_LARGE"),
    errors.TooManyTransfers: (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_TRANSFERS"),
    errors.TooManyWatches: (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES"),
    errors.SlowWatcher: (StatusCode.RESOURCE_EXHAUSTED, "SLOW_WATCHER"),
    errors.CursorExpired: (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED"),
    errors.DatabaseUnavailable: (StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE"),
    errors.ShuttingDown: (StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
    DeadlineExceeded: (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    errors.TransferStalled: (StatusCode.DEADLINE_EXCEEDED, "TRANSFER_STALLED"),
    errors.CorruptData: (StatusCode.DATA_LOSS, "CORRUPT_DATA"),
    MethodNotFound: (StatusCode.UNIMPLEMENTED, "METHOD_NOT_FOUND"),
}
INTERNAL = (StatusCode.INTERNAL, "INTERNAL")


@dataclass(frozen=True, slots=True)
class CallerError:
    """An error as it goes over the wire."""

    code: StatusCode
    reason: str
    message: str
    details: bytes
    """A serialised google.rpc.Status: the value of `grpc-status-details-bin`."""


def to_caller(error: BaseException, request_id: str = "") -> CallerError:
    """Return what the caller is told about an exception."""
    code, reason = kind_of(error)
    if (code, reason) == INTERNAL or not isinstance(error, errors.SessionServiceError):
        return _caller_error(code, reason, _internal(request_id), [_error_info(reason, {})])
    return _caller_error(code, reason, error.message, _details(error, reason))


def to_save_error(error: BaseException, request_id: str = "") -> SaveError:
    """Return what the caller of SaveSessions is told about one save."""
    code, reason = kind_of(error)
    number: int = code.value[0]
    if (code, reason) == INTERNAL or not isinstance(error, errors.SessionServiceError):
        return SaveError(code=number, reason=reason, message=_internal(request_id))
    metadata = dict(_error_info(reason, error.metadata).metadata)
    if isinstance(error, errors.Unavailable):
        metadata["retry_delay_ms"] = str(round(error.retry_after * 1000))
    return SaveError(code=number, reason=reason, message=_bounded(error.message), metadata=metadata)


def kind_of(error: BaseException) -> tuple[StatusCode, str]:
    """Return the status and the reason of an exception."""
    for kind in type(error).__mro__:
        if kind in TABLE and isinstance(error, errors.SessionServiceError):
            return TABLE[kind]
    return INTERNAL


def _internal(request_id: str) -> str:
    return f"internal error; the server's log has it under request id {request_id}"


def _caller_error(code: StatusCode, reason: str, message: str, details: list[Message]) -> CallerError:
    number: int = code.value[0]
    status = Status(code=number, message=_bounded(message))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return CallerError(code, reason, status.message, status.SerializeToString())


def _details(error: errors.SessionServiceError, reason: str) -> list[Message]:
    details: list[Message] = [_error_info(reason, error.metadata)]
    if isinstance(error, errors.InvalidField):
        details.append(_bad_request(error))
    if isinstance(error, errors.Precondition):
        details.append(_precondition_failure(error, reason))
    if isinstance(error, errors.Unavailable):
        details.append(_retry_info(error.retry_after))
    return details


def _error_info(reason: str, metadata: Mapping[str, str]) -> ErrorInfo:
    kept = list(metadata.items())[:_METADATA_LIMIT]
    return ErrorInfo(reason=reason, domain=DOMAIN, metadata={k: _bounded(v, 256) for k, v in kept})


def _bad_request(error: errors.InvalidField) -> BadRequest:
    violation = BadRequest.FieldViolation(field=_bounded(error.field, 256), description=_bounded(error.description))
    return BadRequest(field_violations=[violation])


def _precondition_failure(error: errors.Precondition, reason: str) -> PreconditionFailure:
    violation = PreconditionFailure.Violation(
        type=reason, subject=_bounded(error.subject), description=_bounded(error.message)
    )
    return PreconditionFailure(violations=[violation])


def _retry_info(seconds: float) -> RetryInfo:
    delay = Duration()
    delay.FromMicroseconds(round(seconds * 1_000_000))
    return RetryInfo(retry_delay=delay)


def _bounded(text: object, limit: int = _TEXT_LIMIT) -> str:
    """Return a text as valid UTF-8 of at most `limit` bytes."""
    encoded = str(text).encode("utf-8", errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    return encoded[: limit - 3].decode(errors="ignore") + "…"
