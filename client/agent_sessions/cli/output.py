"""What commands print: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as ProtobufMessage

from agent_sessions.cli import human, terminal
from agent_sessions.cli.table import Column, Table, print_fields
from agent_sessions.v1 import session_pb2 as pb

_SESSION_COLUMNS = (
    Column("AGENT"),
    Column("SESSION"),
    Column("REVISION", right=True),
    Column("MESSAGES", right=True),
    Column("SIZE", right=True),
    Column("CREATED"),
    Column("UPDATED"),
    Column("DELETED"),
)
_REVISION_COLUMNS = (
    Column("REVISION", right=True),
    Column("MESSAGES", right=True),
    Column("SIZE", right=True),
    Column("CREATED"),
    Column("CHECKPOINT"),
    Column("METADATA"),
)
_MESSAGE_COLUMNS = (Column("#", right=True), Column("ROLE"), Column("SIZE", right=True), Column("CONTENT"))
_PREVIEW = 2_000
"""Characters of a message that are looked at; a terminal shows fewer, a pipe this many."""


def proto_document(message: ProtobufMessage) -> dict[str, Any]:
    """Return the message's protobuf JSON, with the names of the .proto file and no field left out."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one document on one line. ASCII only, so that no byte of it steers a terminal."""
    print(json.dumps(document, ensure_ascii=True))


def session_list(as_json: bool) -> Callable[[Sequence[pb.Session]], None]:
    """Return what prints a page of sessions."""
    if as_json:
        return _print_lines
    table = Table(sys.stdout, *_SESSION_COLUMNS)
    return lambda sessions: table.add(_session_row(session) for session in sessions)


def revision_list(as_json: bool) -> Callable[[Sequence[pb.Revision]], None]:
    """Return what prints a page of revisions."""
    if as_json:
        return _print_lines
    table = Table(sys.stdout, *_REVISION_COLUMNS)
    return lambda revisions: table.add(_revision_row(revision) for revision in revisions)


def _print_lines(messages: Iterable[ProtobufMessage]) -> None:
    for message in messages:
        print_json(proto_document(message))


def print_session(session: pb.Session) -> None:
    """Print all that is known of a session."""
    print_fields(
        sys.stdout,
        (
            ("agent", session.agent_id),
            ("session", session.session_name),
            ("uid", session.uid),
            ("user", session.user_id),
            ("head revision", str(session.head_revision)),
            ("messages", str(session.message_count)),
            ("size", human.size(session.size_bytes)),
            ("labels", human.pairs(session.labels)),
            ("created", human.time(session.create_time)),
            ("updated", human.time(session.update_time)),
            ("last restored", human.time(session.last_restore_time) if session.HasField("last_restore_time") else ""),
            ("deleted", human.time(session.delete_time) if session.HasField("delete_time") else ""),
        ),
    )


def print_revision(session: pb.Session, revision: pb.Revision) -> None:
    """Print all that is known of a revision."""
    print_fields(
        sys.stdout,
        (
            ("agent", session.agent_id),
            ("session", session.session_name),
            ("revision", f"{revision.revision} of {session.head_revision}"),
            ("parent revision", str(revision.parent_revision or "")),
            ("messages", str(revision.message_count)),
            ("size", human.size(revision.size_bytes)),
            ("created", human.time(revision.create_time)),
            ("checkpoint", revision.checkpoint_id),
            ("metadata", human.pairs(revision.metadata)),
            ("etag", revision.etag),
        ),
    )


def print_state(state: pb.AgentState, message_count: int) -> None:
    """Print a state: its small fields, its values by name and size, the beginning of each message."""
    print_fields(
        sys.stdout,
        (
            ("loop state", _enum_name(pb.LoopState, state.loop_state, "LOOP_STATE_")),
            ("state created", human.time(state.created_at) if state.HasField("created_at") else ""),
            ("provider", state.llm_provider),
            ("authenticated by", state.auth_context.type),
            ("values", ", ".join(f"{name} ({human.size(len(p.data))})" for name, p in sorted(state.values.items()))),
        ),
    )
    if state.message_history:
        print()
        # Limited to the newest, they keep the numbers they have in the conversation.
        first = message_count - len(state.message_history)
        Table(sys.stdout, *_MESSAGE_COLUMNS).add(
            _message_row(number, message) for number, message in enumerate(state.message_history, first + 1)
        )


def print_event(event: pb.SessionEvent) -> None:
    """Print an event on a line."""
    what = _enum_name(pb.EventType, event.type, "EVENT_TYPE_")
    who = f"{event.actor} ({event.client_id})" if event.client_id else event.actor
    where = f"{event.agent_id}/{event.session_name}"
    print(
        terminal.printable(f"{human.time(event.create_time)}  {what:<9}  {where}  revision {event.revision}  by {who}")
    )


def _session_row(session: pb.Session) -> Sequence[str]:
    return (
        session.agent_id,
        session.session_name,
        str(session.head_revision),
        str(session.message_count),
        human.size(session.size_bytes),
        human.time(session.create_time),
        human.time(session.update_time),
        human.time(session.delete_time) if session.HasField("delete_time") else "",
    )


def _revision_row(revision: pb.Revision) -> Sequence[str]:
    return (
        str(revision.revision),
        str(revision.message_count),
        human.size(revision.size_bytes),
        human.time(revision.create_time),
        revision.checkpoint_id,
        human.pairs(revision.metadata),
    )


def _message_row(number: int, message: pb.Message) -> Sequence[str]:
    role = _enum_name(pb.Role, message.role, "ROLE_") if message.role else ""
    if message.WhichOneof("content") == "payload":
        data = message.payload.data
        shown = data[: 4 * _PREVIEW].decode(errors="replace")[:_PREVIEW]
        return (str(number), role, human.size(len(data)), terminal.one_line(shown))
    return (str(number), role, human.size(len(message.text.encode())), terminal.one_line(message.text[:_PREVIEW]))


def _enum_name(enum: Any, number: int, prefix: str) -> str:
    try:
        return str(enum.Name(number)).removeprefix(prefix).lower()
    except ValueError:  # a newer server's
        return str(number)
