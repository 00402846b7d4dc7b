"""From a gRPC status and its details, or a SaveError, to an exception of `errors`."""

from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import (
    error_details_pb2,
    status_pb2,
)
from grpc import StatusCode
from grpc.aio import AioRpcError

from agent_sessions import errors
from agent_sessions.v1.session_service_pb2 import SaveError

DOMAIN = "agent_sessions"
"""The ErrorInfo domain in which the reasons below mean what they say."""

_DETAILS_KEY = "grpc-status-details-bin"

_BY_REASON: dict[str, type[errors.SessionServiceError]] = {
    "INVALID_FIELD": errors.InvalidField,
    "UNDECODABLE_REQUEST": errors.UndecodableRequest,
    "AGENT_ID_MISMATCH": errors.AgentIdMismatch,
    "INVALID_PAGE_TOKEN": errors.InvalidPageToken,
    "INVALID_RESUME_TOKEN": errors.InvalidResumeToken,
    "REQUEST_ID_REUSED": errors.RequestIdReused,
    "SESSION_NOT_FOUND": errors.SessionNotFound,
    "REVISION_NOT_FOUND": errors.RevisionNotFound,
    "CHECKPOINT_ID_EXISTS": errors.CheckpointIdExists,
    "SESSION_NOT_DELETED": errors.SessionNotDeleted,
    "SESSION_DELETED": errors.SessionDeleted,
    "USER_ID_MISMATCH": errors.UserIdMismatch,
    "BASE_REVISION_NOT_FOUND": errors.BaseRevisionNotFound,
    "REVISION_MISMATCH": errors.RevisionMismatch,
    "SERIALIZATION": errors.Serialization,
    "MESSAGE_TOO_LARGE": errors.MessageTooLarge,
    "STATE_TOO_LARGE": errors.StateTooLarge,
    "TOO_MANY_TRANSFERS": errors.TooManyTransfers,
    "TOO_MANY_WATCHES": errors.TooManyWatches,
    "SLOW_WATCHER": errors.SlowWatcher,
    "CURSOR_EXPIRED": errors.CursorExpired,
    "TRANSFER_STALLED": errors.TransferStalled,
    "DATABASE_UNAVAILABLE": errors.DatabaseUnavailable,
    "SHUTTING_DOWN": errors.ShuttingDown,
    "DEADLINE_EXCEEDED": errors.DeadlineExceeded,
    "CORRUPT_DATA": errors.CorruptData,
    "METHOD_NOT_FOUND": errors.MethodNotFound,
    "INTERNAL": errors.InternalError,
}

_BY_CODE: dict[StatusCode, type[errors.SessionServiceError]] = {
    kind.default_code: kind
    for kind in (
        errors.InvalidRequest,
        errors.NotFound,
        errors.AlreadyExists,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.ResourceExhausted,
        errors.OutOfRange,
        errors.Unavailable,
        errors.DeadlineExceeded,
        errors.DataLoss,
        errors.Unimplemented,
        errors.PermissionDenied,
        errors.Unauthenticated,
        errors.InternalError,
    )
}

_CODES: dict[int, StatusCode] = {code.value[0]: code for code in StatusCode}

_Detail = TypeVar("_Detail", bound=Message)


def error_from_rpc(failure: AioRpcError) -> errors.SessionServiceError:
    """Return the exception that tells what `failure` means; raise it from `failure`."""
    status = _status(failure)
    info = _first(status, error_details_pb2.ErrorInfo())
    code = failure.code()
    if code is StatusCode.CANCELLED:
        # Not by us: that is a CancelledError. A server that goes away ends calls so which it had not begun.
        code = StatusCode.UNAVAILABLE
    return _kind(code, info.reason if info and info.domain == DOMAIN else "")(
        failure.details() or code.name,
        code=code,
        reason=info.reason if info else "",
        metadata=dict(info.metadata) if info else None,
        field_violations=_field_violations(status),
        precondition_violations=_precondition_violations(status),
        retry_delay=_retry_delay(status),
    )


def error_from_save(failure: SaveError) -> errors.SessionServiceError:
    """Return the exception that a unary save would have ended with."""
    code = _CODES.get(failure.code, StatusCode.UNKNOWN)
    metadata = dict(failure.metadata)
    delay = metadata.pop("retry_delay_ms", "")
    field = metadata.get("field", "")
    return _kind(code, failure.reason)(
        failure.message or code.name,
        code=code,
        reason=failure.reason,
        metadata=metadata,
        field_violations=[errors.FieldViolation(field, failure.message.removeprefix(f"{field}: "))] if field else (),
        retry_delay=int(delay) / 1000 if delay.isascii() and delay.isdigit() else None,
    )


def _kind(code: StatusCode, reason: str) -> type[errors.SessionServiceError]:
    by_code = _BY_CODE.get(code, errors.SessionServiceError)
    by_reason = _BY_REASON.get(reason, by_code)
    # A reason under a code that it does not belong to is not the one we know.
    return by_reason if by_reason.default_code is code else by_code


def _status(failure: AioRpcError) -> status_pb2.Status:
    """Return the details; empty when there are none or they cannot be read."""
    for key, value in failure.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _details(status: status_pb2.Status, empty: _Detail) -> Iterator[_Detail]:
    for packed in status.details:
        if packed.Is(empty.DESCRIPTOR):
            detail = type(empty)()
            try:
                packed.Unpack(detail)
            except DecodeError:
                continue
            yield detail


def _first(status: status_pb2.Status, empty: _Detail) -> _Detail | None:
    return next(_details(status, empty), None)


def _field_violations(status: status_pb2.Status) -> list[errors.FieldViolation]:
    return [
        errors.FieldViolation(violation.field, violation.description)
        for detail in _details(status, error_details_pb2.BadRequest())
        for violation in detail.field_violations
    ]


def _precondition_violations(status: status_pb2.Status) -> list[errors.PreconditionViolation]:
    return [
        errors.PreconditionViolation(violation.type, violation.subject, violation.description)
        for detail in _details(status, error_details_pb2.PreconditionFailure())
        for violation in detail.violations
    ]


def _retry_delay(status: status_pb2.Status) -> float | None:
    detail = _first(status, error_details_pb2.RetryInfo())
    if detail is None:
        return None
    seconds: float = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
    return max(0.0, seconds)
