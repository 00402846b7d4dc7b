"""The arguments of every command."""

import argparse
from collections.abc import Mapping
from importlib import metadata
from typing import NoReturn

from agent_sessions.cli import argument_types as types
from agent_sessions.cli.failures import ExitCode
from agent_sessions.cli.terminal import one_line
from agent_sessions.watch import EventType

TARGET_VARIABLE = "SESSIONCTL_TARGET"
DEFAULT_TARGET = "127.0.0.1:7450"
DEFAULT_TIMEOUT = 10.0
"""Seconds. Shorter than the library's: a person waits."""


class _Parser(argparse.ArgumentParser):
    """Tells an error in one line; --help shows the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"{self.prog}: {one_line(message)} (see {self.prog} --help)\n")


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the parser; the command is left in `command`."""
    root = _Parser(
        prog="sessionctl",
        description="Saves, restores and lists the sessions that agents keep in an agent session service.",
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    _add_globals(root, environ.get(TARGET_VARIABLE) or DEFAULT_TARGET)
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for name, purpose, add_arguments in _COMMANDS:
        command = commands.add_parser(
            name,
            help=purpose,
            description=purpose,
            epilog=_exit_codes(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        _add_globals(command, None)
        add_arguments(command)
    return root


def version() -> str:
    """Return the installed distribution's version; `unknown` when run from a source tree."""
    try:
        return metadata.version("agent-session-service")
    except metadata.PackageNotFoundError:
        return "unknown"


def _add_globals(parser: argparse.ArgumentParser, target: str | None) -> None:
    """Add what every command takes, before its name (target is given) or after it."""
    given = target is not None
    group = parser.add_argument_group("for every command")
    group.add_argument(
        "--target",
        metavar="HOST:PORT",
        type=types.address,
        default=target if given else argparse.SUPPRESS,
        help=f"the server [{TARGET_VARIABLE}; default {DEFAULT_TARGET}]",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=types.seconds,
        default=DEFAULT_TIMEOUT if given else argparse.SUPPRESS,
        help=f"for each call with its retries [default {DEFAULT_TIMEOUT:g}]",
    )
    group.add_argument(
        "--output",
        choices=("table", "json"),
        default="table" if given else argparse.SUPPRESS,
        help="table for people; json for programs: one document, or one a line for lists [default table]",
    )
    group.add_argument(
        "--json",
        dest="output",
        action="store_const",
        const="json",
        default=argparse.SUPPRESS,
        help="the same as --output json",
    )


def _add_session(parser: argparse.ArgumentParser, *, name_is_optional: bool = False) -> None:
    parser.add_argument("agent", metavar="AGENT", type=types.text, help="the agent's id")
    if name_is_optional:
        note = "the session's name; without one the server makes it"
        parser.add_argument("session", metavar="SESSION", type=types.text, nargs="?", default="", help=note)
    else:
        parser.add_argument("session", metavar="SESSION", type=types.text, help="the session's name")


def _add_pairs(parser: argparse.ArgumentParser, flag: str, help_text: str) -> None:
    parser.add_argument(flag, metavar="KEY=VALUE", type=types.pair, action="append", help=f"{help_text}; repeatable")


def _add_revision(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--revision", metavar="N", type=types.whole_number(1), help="this revision, not the newest")
    which.add_argument("--checkpoint-id", metavar="ID", type=types.text, default="", help="the revision saved with it")


def _add_expected_revision(parser: argparse.ArgumentParser, least: int) -> None:
    new = "; 0: only if there is no such session" if least == 0 else ""
    help_text = f"only if this is the newest revision{new}"
    parser.add_argument("--expected-revision", metavar="N", type=types.whole_number(least), help=help_text)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    help_text = "only the newest N messages"
    number = types.whole_number(1, types.INT32_MAX)
    parser.add_argument("--message-limit", metavar="N", type=number, default=0, help=help_text)


def _save(parser: argparse.ArgumentParser) -> None:
    _add_session(parser, name_is_optional=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--file", metavar="STATE.json", help="an AgentState in protobuf JSON; - is the standard input")
    source.add_argument(
        "--messages", metavar="FILE.jsonl", help="messages, one JSON object a line (.gz is unpacked; -)"
    )
    _add_expected_revision(parser, 0)
    parser.add_argument("--user-id", metavar="ID", type=types.text, default="", help="on whose behalf the agent works")
    parser.add_argument(
        "--checkpoint-id", metavar="ID", type=types.text, default="", help="your own id of the revision"
    )
    _add_pairs(parser, "--label", "replaces the session's labels")
    _add_pairs(parser, "--metadata", "kept with the revision")
    parser.add_argument("--self-contained", action="store_true", help="share nothing with what is stored: heals damage")


def _restore(parser: argparse.ArgumentParser) -> None:
    _add_session(parser)
    _add_revision(parser)
    _add_limits(parser)
    help_text = "write the state there in protobuf JSON (- is the standard output) instead of showing it"
    parser.add_argument("--file", metavar="OUT", help=help_text)


def _list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", metavar="AGENT", type=types.text, nargs="?", default="", help="only this agent's")
    parser.add_argument("--user-id", metavar="ID", type=types.text, default="", help="only this user's")
    _add_pairs(parser, "--label", "only sessions with this label")
    parser.add_argument("--name-prefix", metavar="TEXT", type=types.text, default="", help="only names that begin so")
    orders = "create_time, update_time or name, alone or with ' desc' [default 'create_time desc']"
    parser.add_argument("--order-by", metavar="ORDER", type=types.text, default="", help=orders)
    parser.add_argument("--show-deleted", action="store_true", help="soft-deleted sessions, too")
    parser.add_argument("--limit", metavar="N", type=types.whole_number(1), help="at most N [default: all]")


def _show(parser: argparse.ArgumentParser) -> None:
    _add_session(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--revisions", action="store_true", help="list the revisions, newest first")
    number = types.whole_number(1)
    what.add_argument("--revision", metavar="N", type=number, help="a revision with its state; nothing is recorded")


def _delete(parser: argparse.ArgumentParser) -> None:
    _add_session(parser)
    parser.add_argument("--purge", action="store_true", help="for good, and free the name; asks first on a terminal")
    _add_expected_revision(parser, 1)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _undelete(parser: argparse.ArgumentParser) -> None:
    _add_session(parser)
    _add_expected_revision(parser, 1)


def _watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", metavar="AGENT", type=types.text, nargs="?", default="", help="only this agent's")
    parser.add_argument("session", metavar="SESSION", type=types.text, nargs="?", default="", help="only this one's")
    help_text = "saved, restored, deleted, undeleted; several with commas [default restored]"
    default = [EventType.RESTORED]
    parser.add_argument("--types", metavar="TYPES", type=types.event_types, default=default, help=help_text)
    help_text = "go on after the event that --json printed with it [default: from now on]"
    parser.add_argument("--resume-token", metavar="BASE64", type=types.resume_token, default=b"", help=help_text)
    parser.add_argument("--count", metavar="N", type=types.whole_number(1), help="end after N events [default: never]")


def _replay(parser: argparse.ArgumentParser) -> None:
    help_text = "conversations, one a line: FILE.jsonl.gz, FILE.jsonl, or a folder of these"
    parser.add_argument("sources", metavar="FILE|FOLDER", nargs="+", help=help_text)
    number = types.whole_number(1, 1000)
    parser.add_argument("--concurrency", metavar="N", type=number, default=8, help="conversations at once [default 8]")
    help_text = "put before every agent's id, to keep a repeated replay apart"
    parser.add_argument("--agent-prefix", metavar="TEXT", type=types.text, default="", help=help_text)
    suffix = parser.add_mutually_exclusive_group()
    help_text = "put behind every session's name"
    suffix.add_argument("--session-suffix", metavar="TEXT", type=types.text, default="", help=help_text)
    suffix.add_argument("--unique", action="store_true", help="a session suffix that was never used")
    parser.add_argument("--quiet", action="store_true", help="no progress; the summary is still printed")


_COMMANDS = (
    ("save", "Save a state as a new revision.", _save),
    ("restore", "Restore a state; the session records it.", _restore),
    ("list", "List sessions, newest created first.", _list),
    ("show", "Show a session, its revisions, or one of them; records nothing.", _show),
    ("delete", "Hide a session until undelete, or purge it.", _delete),
    ("undelete", "Bring a hidden session back.", _undelete),
    ("watch", "Show what happens to sessions, as it happens.", _watch),
    ("replay", "Save recorded conversations message by message, restore and compare them.", _replay),
)


def _exit_codes() -> str:
    return "\n".join(["exit codes:", *(f"  {code.value:>3}  {code.meaning}" for code in ExitCode)])
