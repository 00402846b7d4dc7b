"""`sessionctl watch`."""

import argparse
import asyncio
import base64
import sys

from agent_sessions.cli import output
from agent_sessions.cli.failures import CommandFailed, ExitCode
from agent_sessions.cli.terminal import printable
from agent_sessions.client import SessionClient
from agent_sessions.errors import CursorExpired, DeadlineExceeded
from agent_sessions.watch import Watch


async def watch(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Print events as they happen. A server must be found within the timeout; later it may come and go."""
    watched = client.watch(
        arguments.agent, arguments.session, types=arguments.types, resume_token=arguments.resume_token
    )
    try:
        await _start(watched, arguments.timeout)
        print(f"watching {_subject(arguments)} …", file=sys.stderr, flush=True)
        await _print_events(watched, arguments.output == "json", arguments.count)
    except CursorExpired as error:
        oldest = base64.b64encode(error.oldest_resume_token).decode()
        hint = f"; the oldest token that would do is {oldest}" if oldest else ""
        raise CommandFailed(ExitCode.REFUSED, f"{error.reason}: {error.message}{hint}") from error
    finally:
        await watched.aclose()
    return ExitCode.FINE


async def _start(watched: Watch, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await watched.started()
    except TimeoutError:
        error = DeadlineExceeded(f"no watch within {timeout:g} s")
        error.last_error = watched.last_error
        raise error from None


async def _print_events(watched: Watch, as_json: bool, count: int | None) -> None:
    printed = 0
    async for event in watched:
        if as_json:
            token = base64.b64encode(watched.event_token).decode()
            output.print_json(output.proto_document(event) | {"resume_token": token})
        else:
            output.print_event(event)
        sys.stdout.flush()  # whoever reads a pipe waits for it
        printed += 1
        if printed == count:
            return


def _subject(arguments: argparse.Namespace) -> str:
    kinds = ", ".join(kind.name.lower() for kind in arguments.types)
    if not arguments.agent:
        return f"all agents: {kinds}"
    session = f"/sessions/{arguments.session}" if arguments.session else ""
    return printable(f"agents/{arguments.agent}{session}: {kinds}")
