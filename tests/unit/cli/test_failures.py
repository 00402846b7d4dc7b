"""What ends a command with which exit code, in one safe line."""

import pytest
from agent_sessions import errors
from agent_sessions.cli.failures import CommandFailed, ExitCode, from_error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SessionNotFound("m"), ExitCode.NOT_FOUND),
        (errors.RevisionNotFound("m"), ExitCode.NOT_FOUND),
        (errors.DatabaseUnavailable("m"), ExitCode.UNAVAILABLE),
        (errors.DeadlineExceeded("m"), ExitCode.UNAVAILABLE),
        (errors.CorruptData("m"), ExitCode.DATA_LOSS),
        (errors.RevisionMismatch("m"), ExitCode.REFUSED),
        (errors.InvalidField("m"), ExitCode.REFUSED),
        (errors.InternalError("m"), ExitCode.REFUSED),
        (errors.UnsupportedValue("m"), ExitCode.USAGE),
        (errors.ClientClosed("m"), ExitCode.REFUSED),
    ],
)
def test_exit_codes(error: errors.AgentSessionsError, code: ExitCode) -> None:
    assert from_error(error).code is code


def test_reason_subject_and_message_are_told() -> None:
    error = errors.NotFound("gone", reason="SESSION_NOT_FOUND")
    assert str(from_error(error, "agents/a")) == "SESSION_NOT_FOUND: agents/a: gone"
    assert str(from_error(errors.Unavailable("away"))) == "UNAVAILABLE: away"


def test_a_deadline_tells_what_was_wrong_before() -> None:
    error = errors.DeadlineExceeded("no success")
    error.last_error = errors.Unavailable("refused")
    assert str(from_error(error)) == "DEADLINE_EXCEEDED: no success; the last: UNAVAILABLE: refused"


def test_a_message_is_one_safe_line() -> None:
    assert str(CommandFailed(ExitCode.USAGE, "a\nb\x1b[31m")) == "a b\ufffd[31m"


def test_the_numbers_scripts_rely_on() -> None:
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 130, 141]
