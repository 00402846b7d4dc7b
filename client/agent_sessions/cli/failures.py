"""How a command ends when it cannot do its work: one line for people, an exit code for programs."""

from enum import IntEnum
from typing import Self

from agent_sessions import errors
from agent_sessions.cli.terminal import one_line


class ExitCode(IntEnum):
    """What the process ends with."""

    meaning: str
    """For --help."""

    def __new__(cls, number: int, meaning: str) -> Self:
        """Make a member of a number and what it means."""
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    FINE = 0, "done"
    REFUSED = 1, "refused by the server, or by you when asked before a purge"
    USAGE = 2, "wrong arguments, unreadable input, or output that cannot be written"
    NOT_FOUND = 3, "no such session or revision"
    UNAVAILABLE = 4, "no server, a server without its database, or no answer in time"
    DATA_LOSS = 5, "stored data is damaged, or a comparison failed"
    INTERRUPTED = 130, "ctrl-C"
    BROKEN_PIPE = 141, "the reader of the output went away"


class CommandFailed(Exception):
    """The command ends here, with a message of one line that is safe to show."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(one_line(message))
        self.code = code


def usage(message: str) -> CommandFailed:
    """Return the failure for arguments or input that cannot be used."""
    return CommandFailed(ExitCode.USAGE, message)


def from_error(error: errors.AgentSessionsError, subject: str = "") -> CommandFailed:
    """Return the failure that an error of the client library means; `subject` tells what was being done."""
    where = f"{subject}: " if subject else ""
    if isinstance(error, errors.SessionServiceError):
        return CommandFailed(_code(error), f"{_reason(error)}: {where}{error.message}{_cause(error)}")
    if isinstance(error, errors.StateError):
        return CommandFailed(ExitCode.USAGE, f"{where}{error}")
    return CommandFailed(ExitCode.REFUSED, f"{where}{error}")


def _reason(error: errors.SessionServiceError) -> str:
    return error.reason or error.code.name


def _cause(error: errors.SessionServiceError) -> str:
    """Return why attempts failed before time was up."""
    last = error.last_error if isinstance(error, errors.DeadlineExceeded) else None
    if last is None or last.message in error.message:
        return ""
    return f"; the last: {_reason(last)}: {last.message}"


def _code(error: errors.SessionServiceError) -> ExitCode:
    match error:
        case errors.NotFound():
            return ExitCode.NOT_FOUND
        case errors.Unavailable() | errors.DeadlineExceeded():
            return ExitCode.UNAVAILABLE
        case errors.DataLoss():
            return ExitCode.DATA_LOSS
        case _:
            return ExitCode.REFUSED
