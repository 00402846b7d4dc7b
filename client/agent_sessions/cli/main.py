"""The entry point: arguments in, one command run, an exit code out."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from agent_sessions.cli import deleting, reading, saving, watching
from agent_sessions.cli.arguments import parser
from agent_sessions.cli.failures import CommandFailed, ExitCode, from_error
from agent_sessions.cli.replay import command as replay
from agent_sessions.client import SessionClient
from agent_sessions.errors import AgentSessionsError

_COMMANDS: dict[str, Callable[[SessionClient, argparse.Namespace], Awaitable[ExitCode]]] = {
    "save": saving.save,
    "restore": reading.restore,
    "list": reading.list_sessions,
    "show": reading.show,
    "delete": deleting.delete,
    "undelete": deleting.undelete,
    "watch": watching.watch,
    "replay": replay.replay,
}
_BEFORE: dict[str, Callable[[argparse.Namespace], None]] = {
    "save": saving.read_state,
    "delete": deleting.confirm,
    "replay": replay.read_corpus,
}
"""What reads from the terminal or from files: done outside the event loop, where ctrl-C interrupts it."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run sessionctl and exit."""
    arguments = parser(os.environ).parse_args(argv)
    # Where the terminal's encoding lacks a character, a substitute is better than no output.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a TextIOWrapper in a process of its own
    sys.stderr.reconfigure(errors="replace")  # type: ignore[union-attr]
    # gRPC's C core writes to stderr by itself; set the variable to see it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    sys.exit(run(arguments))


def run(arguments: argparse.Namespace) -> ExitCode:
    """Run the command and return its exit code; failures are told on stderr in one line."""
    try:
        if before := _BEFORE.get(arguments.command):
            before(arguments)
        code = asyncio.run(_run(arguments))
        sys.stdout.flush()
    except CommandFailed as failed:
        return _tell(failed)
    except AgentSessionsError as error:
        return _tell(from_error(error))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()
        return ExitCode.BROKEN_PIPE
    except OSError as failed:  # a full disk, for example; files and the network have errors of their own
        _discard_stdout()
        return _tell(CommandFailed(ExitCode.USAGE, f"cannot write the output: {failed.strerror or failed}"))
    return code


async def _run(arguments: argparse.Namespace) -> ExitCode:
    async with SessionClient(arguments.target, timeout=arguments.timeout) as client:
        return await _COMMANDS[arguments.command](client, arguments)


def _discard_stdout() -> None:
    """Let what Python flushes when it ends go nowhere, so that it does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell(failed: CommandFailed) -> ExitCode:
    print(f"sessionctl: {failed}", file=sys.stderr)
    return failed.code


if __name__ == "__main__":
    main()
