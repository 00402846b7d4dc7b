"""`sessionctl save`."""

import argparse

from agent_sessions.cli import json_input, output
from agent_sessions.cli.failures import ExitCode
from agent_sessions.client import SessionClient
from agent_sessions.results import SavedRevision
from agent_sessions.state import State


def read_state(arguments: argparse.Namespace) -> None:
    """Read the file and leave what it holds in `arguments.state`."""
    if arguments.file is not None:
        arguments.state = json_input.read_state(arguments.file)
    else:
        arguments.state = State(messages=[message for _, message in json_input.json_lines(arguments.messages)])


async def save(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Save what `read_state` read."""
    saved = await client.save(
        arguments.agent,
        arguments.session,
        arguments.state,
        expected_revision=arguments.expected_revision,
        user_id=arguments.user_id,
        labels=None if arguments.label is None else dict(arguments.label),
        checkpoint_id=arguments.checkpoint_id,
        metadata=dict(arguments.metadata or ()),
        self_contained=arguments.self_contained,
    )
    _print(saved, arguments.output == "json")
    return ExitCode.FINE


def _print(saved: SavedRevision, as_json: bool) -> None:
    if as_json:
        session, revision = output.proto_document(saved.session), output.proto_document(saved.revision)
        output.print_json({"session": session, "revision": revision, "replayed": saved.replayed})
    else:
        output.print_revision(saved.session, saved.revision)
