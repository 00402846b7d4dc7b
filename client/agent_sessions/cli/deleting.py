"""`sessionctl delete` and `undelete`."""

import argparse
import sys

from agent_sessions.cli import output
from agent_sessions.cli.failures import CommandFailed, ExitCode
from agent_sessions.cli.terminal import printable
from agent_sessions.client import SessionClient
from agent_sessions.v1.session_pb2 import Session


def confirm(arguments: argparse.Namespace) -> None:
    """Ask before a purge, if there is a person to ask. On stderr, so that the output stays the command's."""
    if not arguments.purge or arguments.yes or not sys.stdin.isatty():
        return
    name = printable(f"agents/{arguments.agent}/sessions/{arguments.session}")
    print(f"Purge {name} with all its revisions, for good? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandFailed(ExitCode.REFUSED, "nothing was purged")


async def delete(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Hide a session, or purge it."""
    session = await client.delete(
        arguments.agent,
        arguments.session,
        purge=arguments.purge,
        expected_revision=arguments.expected_revision,
    )
    _print(session, arguments.output == "json")
    return ExitCode.FINE


async def undelete(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Bring a hidden session back."""
    session = await client.undelete(arguments.agent, arguments.session, expected_revision=arguments.expected_revision)
    _print(session, arguments.output == "json")
    return ExitCode.FINE


def _print(session: Session, as_json: bool) -> None:
    if as_json:
        output.print_json(output.proto_document(session))
    else:
        output.print_session(session)
