"""From status codes and details to typed errors."""

import pickle
import re
from pathlib import Path

import grpc
import pytest
from agent_sessions import errors
from agent_sessions.client import SessionClient
from agent_sessions.retry import is_retryable
from agent_sessions.status import error_from_rpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import StatusCode

from tests.unit.client.scripted_server import Failure, ScriptedServer, expired, info, retry_after

PROTO = Path(__file__).parents[3] / "protos/agent_sessions/v1/session_service.proto"


def documented_reasons() -> list[tuple[str, str]]:
    """Return (code, reason) of every line of the proto's table of errors."""
    table = PROTO.read_text().split("and a stable reason:")[1].split("// Retries.")[0]
    code, rows = "", []
    for line in re.sub(r"\([^)]*\)", "", table).splitlines():
        words = re.findall("[A-Z_]{4,}", line)
        if re.match("//   [A-Z]", line):
            code = words.pop(0)
        rows += [(code, reason) for reason in words]
    return rows


def explain(failure: Failure, trailing: tuple[tuple[str, bytes], ...] | None = None) -> errors.SessionServiceError:
    metadata = failure.trailing_metadata() if trailing is None else trailing
    return error_from_rpc(
        grpc.aio.AioRpcError(failure.code, grpc.aio.Metadata(), grpc.aio.Metadata(*metadata), details=failure.message)
    )


def class_name(reason: str) -> str:
    special = {"INTERNAL": "InternalError"}
    return special.get(reason, "".join(word.title() for word in reason.split("_")))


@pytest.mark.parametrize(("code", "reason"), documented_reasons())
def test_every_documented_reason_has_its_class(code: str, reason: str) -> None:
    error = explain(Failure(StatusCode[code], "no", info(reason)))
    assert type(error).__name__ == class_name(reason)
    assert (error.code, error.default_code, error.reason) == (StatusCode[code], StatusCode[code], reason)


def test_the_table_was_read() -> None:
    reasons = {reason for _, reason in documented_reasons()}
    assert len(reasons) == 28
    assert {"INVALID_FIELD", "REQUEST_ID_REUSED", "SHUTTING_DOWN", "INTERNAL", "CORRUPT_DATA"} <= reasons


def test_details_become_attributes() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(field="snapshot.agent_id", description="too long")
    precondition = error_details_pb2.PreconditionFailure.Violation(type="T", subject="s", description="d")
    error = explain(
        Failure(
            StatusCode.INVALID_ARGUMENT,
            "bad",
            error_details_pb2.BadRequest(field_violations=[violation]),
            error_details_pb2.PreconditionFailure(violations=[precondition]),
            retry_after(1.5),
            info("INVALID_FIELD", limit="255"),
        )
    )
    assert isinstance(error, errors.InvalidField)
    assert error.field == "snapshot.agent_id"
    assert error.field_violations == (errors.FieldViolation("snapshot.agent_id", "too long"),)
    assert error.precondition_violations == (errors.PreconditionViolation("T", "s", "d"),)
    assert (error.message, str(error), error.metadata) == ("bad", "bad", {"limit": "255"})
    assert error.retry_delay == 1.5


@pytest.mark.parametrize(
    ("code", "detail", "attribute", "value"),
    [
        (StatusCode.ABORTED, info("REVISION_MISMATCH", current_revision="7"), "current_revision", 7),
        (StatusCode.ABORTED, info("REVISION_MISMATCH", current_revision="0"), "current_revision", 0),
        (StatusCode.ABORTED, info("REVISION_MISMATCH", current_revision="x"), "current_revision", None),
        (StatusCode.ABORTED, info("REVISION_MISMATCH", expected_revision="2"), "expected_revision", 2),
        (StatusCode.RESOURCE_EXHAUSTED, info("MESSAGE_TOO_LARGE", limit="10"), "limit", 10),
        (StatusCode.RESOURCE_EXHAUSTED, info("MESSAGE_TOO_LARGE", actual="11"), "actual", 11),
        (StatusCode.DATA_LOSS, info("CORRUPT_DATA", revision="3"), "revision", 3),
        (StatusCode.INVALID_ARGUMENT, info("INVALID_FIELD", field="agent_id"), "field", "agent_id"),
        (StatusCode.INVALID_ARGUMENT, info("INVALID_FIELD"), "field", ""),
    ],
)
def test_facts_of_a_reason(code: StatusCode, detail: Message, attribute: str, value: object) -> None:
    assert getattr(explain(Failure(code, "no", detail)), attribute) == value


@pytest.mark.parametrize(("told", "token"), [("AAH/", b"\0\1\xff"), ("%", b""), ("", b"")])
def test_the_oldest_token(told: str, token: bytes) -> None:
    error = explain(expired(told))
    assert isinstance(error, errors.CursorExpired)
    assert error.oldest_resume_token == token


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(StatusCode.NOT_FOUND), errors.NotFound),
        (Failure(StatusCode.NOT_FOUND, "no", info("NEW_REASON")), errors.NotFound),
        (Failure(StatusCode.NOT_FOUND, "no", info("SESSION_NOT_FOUND", domain="x")), errors.NotFound),
        (Failure(StatusCode.UNAVAILABLE, "no", info("SESSION_NOT_FOUND")), errors.Unavailable),
        (Failure(StatusCode.PERMISSION_DENIED), errors.PermissionDenied),
        (Failure(StatusCode.UNAUTHENTICATED), errors.Unauthenticated),
        (Failure(StatusCode.OUT_OF_RANGE), errors.OutOfRange),
        (Failure(StatusCode.UNKNOWN), errors.SessionServiceError),
    ],
)
def test_without_a_known_reason_the_code_decides(failure: Failure, kind: type[errors.SessionServiceError]) -> None:
    error = explain(failure)
    assert type(error) is kind
    assert error.code is failure.code


@pytest.mark.parametrize("garbage", [b"\xff\xff", b""])
def test_details_that_cannot_be_read_are_left_out(garbage: bytes) -> None:
    error = explain(Failure(StatusCode.NOT_FOUND), (("grpc-status-details-bin", garbage),))
    assert type(error) is errors.NotFound


def test_a_call_that_the_server_cancelled_may_be_made_again() -> None:
    error = explain(Failure(StatusCode.CANCELLED, "CANCELLED"))
    assert isinstance(error, errors.Unavailable)
    assert is_retryable(error)


async def test_grpcs_own_error_is_only_the_cause(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [Failure(StatusCode.NOT_FOUND, "no session s", info("SESSION_NOT_FOUND"))]
    with pytest.raises(errors.SessionNotFound, match="no session s") as caught:
        await client.get_session("a", "s")
    assert grpc.RpcError not in type(caught.value).__mro__
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)


def test_errors_survive_pickling() -> None:
    failure = Failure(StatusCode.ABORTED, "no", info("REVISION_MISMATCH", current_revision="7"))
    copy = pickle.loads(pickle.dumps(explain(failure)))  # noqa: S301 – made on the line itself
    assert isinstance(copy, errors.RevisionMismatch)
    assert (copy.current_revision, copy.reason) == (7, "REVISION_MISMATCH")
