"""`sessionctl restore`, `list` and `show`."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from agent_sessions.cli import output
from agent_sessions.cli.failures import ExitCode, usage
from agent_sessions.cli.json_input import STDIN as STDOUT
from agent_sessions.client import SessionClient
from agent_sessions.pages import Pager
from agent_sessions.results import StoredRevision
from agent_sessions.v1.session_pb2 import AgentState

_PAGE_SIZE = 1000
_Item = TypeVar("_Item")


async def restore(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Restore a state and show it, or write it to a file."""
    restored = await client.restore(
        arguments.agent,
        arguments.session,
        revision=arguments.revision,
        checkpoint_id=arguments.checkpoint_id,
        message_limit=arguments.message_limit,
    )
    as_json = arguments.output == "json"
    if arguments.file is not None:
        _write_state(restored.agent_state, arguments.file)
    if arguments.file == STDOUT:
        return ExitCode.FINE  # what follows would spoil the document
    _print_revision(restored, as_json, with_state=arguments.file is None)
    return ExitCode.FINE


async def list_sessions(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """List sessions page by page."""
    pager = client.list_sessions(
        arguments.agent,
        user_id=arguments.user_id,
        labels=dict(arguments.label or ()),
        name_prefix=arguments.name_prefix,
        show_deleted=arguments.show_deleted,
        order_by=arguments.order_by,
        page_size=min(arguments.limit or _PAGE_SIZE, _PAGE_SIZE),
    )
    as_json = arguments.output == "json"
    if not await _print_pages(pager, output.session_list(as_json), arguments.limit) and not as_json:
        print("no sessions", file=sys.stderr)
    return ExitCode.FINE


async def show(client: SessionClient, arguments: argparse.Namespace) -> ExitCode:
    """Show a session, its revisions, or one revision."""
    names, as_json = (arguments.agent, arguments.session), arguments.output == "json"
    if arguments.revisions:
        pager = client.list_revisions(*names, page_size=_PAGE_SIZE)
        await _print_pages(pager, output.revision_list(as_json), None)
    elif arguments.revision is not None:
        _print_revision(await client.get_revision(*names, revision=arguments.revision), as_json, with_state=True)
    else:
        session = await client.get_session(*names)
        if as_json:
            output.print_json(output.proto_document(session))
        else:
            output.print_session(session)
    return ExitCode.FINE


async def _print_pages(pager: Pager[_Item], print_page: Callable[[Sequence[_Item]], None], limit: int | None) -> int:
    """Print up to `limit` items and return how many there were."""
    printed = 0
    async for page in pager.pages():
        items = page.items if limit is None else page.items[: limit - printed]
        if items:
            print_page(items)
        printed += len(items)
        if printed == limit:
            break
    return printed


def _print_revision(stored: StoredRevision, as_json: bool, *, with_state: bool) -> None:
    state = stored.agent_state if with_state else None
    if as_json:
        document: dict[str, Any] = {
            "session": output.proto_document(stored.session),
            "revision": output.proto_document(stored.revision),
        }
        output.print_json(document | ({} if state is None else {"state": output.proto_document(state)}))
        return
    output.print_revision(stored.session, stored.revision)
    if state is not None:
        output.print_state(state, stored.revision.message_count)


def _write_state(state: AgentState, path: str) -> None:
    if path == STDOUT:
        output.print_json(output.proto_document(state))
        return
    try:
        Path(path).write_text(json.dumps(output.proto_document(state)) + "\n", encoding="ascii")
    except OSError as failed:
        raise usage(f"{path}: {failed.strerror or failed}") from failed
