import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode
from session_service.api.errors import DOMAIN, INTERNAL, TABLE, to_caller
from session_service.sessions import errors

PROTO = Path(__file__).parents[3] / "protos/agent_sessions/v1/session_service.proto"
TRAILING_METADATA_LIMIT = 8 * 1024


def leaves(kind: type[Exception]) -> Iterator[type[Exception]]:
    if kind.__module__ != errors.__name__:
        return
    below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    if not below:
        yield kind
    for child in below:
        yield from leaves(child)


def made(kind: type[Exception], text: str = "what happened") -> Exception:
    if issubclass(kind, errors.InvalidField):
        return kind("snapshot.message_history[3].role", text, 99)
    if issubclass(kind, errors.Precondition):
        return kind(text, "agents/a/sessions/s")
    return kind(text, {"current_revision": "7"})


def details(error: BaseException) -> dict[type[Message], Message]:
    found: dict[type[Message], Message] = {}
    for packed in Status.FromString(to_caller(error).details).details:
        for kind in (ErrorInfo, BadRequest, PreconditionFailure, RetryInfo):
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(packed.value)
    return found


def documented() -> dict[str, set[str]]:
    """Read the table of errors in the comment of the .proto: status -> reasons."""
    _, _, after = PROTO.read_text().partition("// and a stable reason:\n")
    table, _, _ = after.partition("// Retries.")
    reasons: defaultdict[str, set[str]] = defaultdict(set)
    status = ""
    for line in re.sub(r"\([^)]*\)", "", table, flags=re.DOTALL).splitlines():
        words = re.findall(r"\b[A-Z][A-Z_]{4,}\b", line)
        if words and re.match(r"//   [A-Z]", line):
            status = words.pop(0)
        reasons[status].update(words)
    del reasons[""]
    return dict(reasons)


def test_the_table_is_the_one_in_the_proto() -> None:
    ours: defaultdict[str, set[str]] = defaultdict(set)
    for code, reason in [*TABLE.values(), INTERNAL]:
        ours[code.name].add(reason)
    assert documented() == dict(ours)


def test_every_leaf_of_the_exception_tree_has_a_status() -> None:
    found = set(leaves(errors.SessionServiceError))
    assert len(found) > 10
    assert found <= set(TABLE)


def test_reasons_are_unique() -> None:
    reasons = [reason for _, reason in TABLE.values()]
    assert len(reasons) == len(set(reasons))


@pytest.mark.parametrize("kind", TABLE)
def test_every_error_carries_error_info(kind: type[Exception]) -> None:
    told = to_caller(made(kind))
    info = details(made(kind))[ErrorInfo]
    assert isinstance(info, ErrorInfo)
    assert (info.domain, info.reason) == (DOMAIN, told.reason)
    assert "what happened" in told.message
    status = Status.FromString(told.details)
    assert (status.code, status.message) == (told.code.value[0], told.message)


def test_metadata_reaches_the_caller() -> None:
    info = details(errors.RevisionMismatch("no", {"current_revision": "7"}))[ErrorInfo]
    assert isinstance(info, ErrorInfo)
    assert dict(info.metadata) == {"current_revision": "7"}


def test_an_invalid_field_names_field_rule_and_value() -> None:
    bad = details(errors.InvalidField("page_size", "must not be negative", -1))[BadRequest]
    assert isinstance(bad, BadRequest)
    (violation,) = bad.field_violations
    assert violation.field == "page_size"
    assert "must not be negative" in violation.description
    assert "-1" in violation.description


def test_a_precondition_names_its_subject() -> None:
    failure = details(errors.SessionDeleted("deleted", "agents/a/sessions/s"))[PreconditionFailure]
    assert isinstance(failure, PreconditionFailure)
    assert failure.violations[0].subject == "agents/a/sessions/s"
    assert failure.violations[0].type == "SESSION_DELETED"


@pytest.mark.parametrize("kind", list(leaves(errors.Unavailable)))
def test_what_is_unavailable_tells_when_to_retry(kind: type[errors.Unavailable]) -> None:
    retry = details(kind("later"))[RetryInfo]
    assert isinstance(retry, RetryInfo)
    assert retry.retry_delay.ToMicroseconds() == round(kind.retry_after * 1_000_000)
    assert RetryInfo not in details(errors.RevisionMismatch("no"))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("SELECT secret FROM t"),
        errors.SessionServiceError("SELECT secret"),
        errors.InvalidRequest("SELECT secret"),
        KeyError("secret"),
    ],
)
def test_the_unknown_is_internal_and_tells_nothing(error: Exception) -> None:
    told = to_caller(error, "r-1")
    assert (told.code, told.reason) == (StatusCode.INTERNAL, "INTERNAL")
    assert b"secret" not in told.details
    assert "secret" not in told.message
    assert "r-1" in told.message


@pytest.mark.parametrize("text", ["x" * 100_000, "\N{PILE OF POO}" * 50_000, "\0\x1b\n" * 9_000, "\ud800" * 9_000])
@pytest.mark.parametrize("kind", TABLE)
def test_an_error_fits_into_trailing_metadata(kind: type[Exception], text: str) -> None:
    told = to_caller(made(kind, text))
    # grpc-message travels with up to three bytes for each, binary metadata with four for three.
    assert 3 * len(told.message.encode()) + len(told.details) * 4 / 3 < TRAILING_METADATA_LIMIT
