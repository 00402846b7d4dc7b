"""Every setting of the service, from flags and environment.

A flag wins over its environment variable (SESSION_SERVICE_ and the flag's name
in upper case), that over the default. An empty variable counts as unset.
"""

import argparse
import ast
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from session_service import config_values as values
from session_service.build_info import version

ENVIRONMENT_PREFIX = "SESSION_SERVICE_"
DEFAULT_REQUEST_BYTES = 4 * 1024 * 1024
COMMANDS = {
    "serve": "Answer RPCs until SIGTERM or SIGINT.",
    "migrate": "Bring the schema of --database-url up to date, as its owner, and exit.",
    "pack": "Pack all messages of --database-url that rest, and exit; `serve` does the same bit by bit.",
    "verify": "Check all that is stored in --database-url, beside running servers: a line on stdout for each row that"
    " is damaged, and one that sums up. Exits with 1 if any is, else with 0.",
}

_EMBEDDED = {
    "migrate": "an embedded database is migrated by `serve`",
    "pack": "an embedded database is packed by `serve`",
    "verify": "that of an embedded database is in the log of `serve`",
}
"""Commands for a database that is given, and what to know of an embedded one."""


def _setting(default: Any, read: Callable[[str], Any], *, secret: bool = False) -> Any:
    """Return a field that knows how its text is read; `read` raises ValueError with the broken rule."""
    return field(default=default, metadata={"read": read}, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings. The text beneath each field is also what --help shows."""

    listen: str = _setting("127.0.0.1:7450", values.address)
    """Where RPCs are answered: HOST:PORT, [IPV6]:PORT or unix:PATH. Port 0: any free one, see the log."""
    ops_listen: str = _setting("127.0.0.1:7451", values.network_address)
    """Where /metrics, /healthz and /readyz are answered (HTTP): HOST:PORT."""
    database_url: str | None = _setting(None, values.database_url, secret=True)
    """PostgreSQL to use: postgresql://USER:PASSWORD@HOST:PORT/DATABASE. None: an embedded one."""
    data_dir: Path = field(default_factory=values.default_data_dir, metadata={"read": values.path})
    """Directory of the embedded PostgreSQL. Not together with --database-url."""
    database_role: str = _setting("session_service_runtime", values.identifier)
    """PostgreSQL role that the server works as (SET ROLE): no DDL rights."""
    pool_size: int = _setting(10, values.whole_number(1, 1000))
    """Connections to PostgreSQL kept for calls: 1 to 1000."""
    statement_timeout: float = _setting(10.0, values.seconds(0.1, 3600))
    """Seconds that one SQL statement may take: 0.1 to 3600."""
    allow_unauthenticated: bool = _setting(False, values.boolean)
    """Listen beyond loopback although callers are not authenticated: whoever reaches the port may do all."""
    max_request_bytes: int = _setting(DEFAULT_REQUEST_BYTES, values.whole_number(1024, 256 * 1024 * 1024))
    """Largest request message in bytes: 1024 to 268435456."""
    max_messages: int = _setting(20_000, values.whole_number(1, 10_000_000))
    """Most messages in one save: 1 to 10000000. Bounds how long one save keeps the others waiting."""
    max_state_bytes: int = _setting(1 << 30, values.whole_number(1024, 1 << 40))
    """Largest state that can be uploaded, in bytes: 1024 to 1099511627776."""
    transfer_memory: int = _setting(256 * 1024 * 1024, values.whole_number(1024 * 1024, 1 << 40))
    """Bytes of memory for all uploads and downloads together: 1048576 to 1099511627776. What finds no room waits."""
    transfer_idle_timeout: float = _setting(30.0, values.seconds(0.1, 3600))
    """Seconds that an upload waits for its caller to send, a download for its caller to read: 0.1 to 3600."""
    transfer_timeout: float = _setting(3600.0, values.seconds(1, 86400))
    """Seconds that one upload or download may take: 1 to 86400. What a broken one leaves is removed after that."""
    direct_database_url: str | None = _setting(None, values.database_url, secret=True)
    """The database of --database-url past a pooler in transaction mode, for LISTEN and NOTIFY. None: --database-url."""
    event_poll_interval: float = _setting(1.0, values.seconds(0.001, 60))
    """Seconds between looks for events where no notification comes: 0.001 to 60."""
    max_watches: int = _setting(10_000, values.whole_number(1, 1_000_000))
    """Most watches at the same time: 1 to 1000000."""
    watch_bookmark_interval: float = _setting(5.0, values.seconds(0.01, 3600))
    """Seconds of silence after which a watch gets a bookmark: 0.01 to 3600."""
    watch_send_timeout: float = _setting(30.0, values.seconds(0.1, 3600))
    """Seconds that a watch's caller may take for one message: 0.1 to 3600. Then the watch is ended."""
    housekeeping_budget: float = _setting(3.0, values.seconds(0, 60))
    """Seconds per minute that each kind of housekeeping may work: 0 (none is done) to 60."""
    pack_after: float = _setting(300.0, values.seconds(0, 30 * 86_400))
    """Seconds without a save after which a session's messages are packed into fewer rows: 0 (at once) to 2592000."""
    event_retention: int = _setting(604_800, values.whole_number(86_400, 315_360_000))
    """Seconds that events are kept: 86400 (a day, for which a request_id is good) to 315360000."""
    drain_timeout: float = _setting(25.0, values.seconds(0, 3600))
    """Seconds that calls in flight get to finish after SIGTERM: 0 to 3600."""
    event_loop: str = _setting("auto", values.one_of("auto", "uvloop", "asyncio"))
    """uvloop, which takes less CPU, or asyncio's own; auto: uvloop if it is installed."""
    log_format: str = _setting("json", values.one_of("json", "console"))
    """json: one object a line; console: for people. Default: console on a terminal, else json."""
    log_level: str = _setting("info", values.one_of("debug", "info", "warning", "error"))
    """Least severe level that is logged: debug, info, warning, error."""

    @property
    def embedded(self) -> bool:
        """Whether the service runs a PostgreSQL of its own."""
        return self.database_url is None


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[str, Settings]:
    """Return the command and its settings. A broken rule is told on stderr and exits with 2."""
    parser = _parser(environ)
    arguments = parser.parse_args(list(argv))
    try:
        given = _given(arguments, environ)
        _check_together(arguments.command, given)
    except ValueError as broken:
        _refuse(parser, str(broken))
    settings = {name: value for name, (_, value) in given.items()}
    return arguments.command, Settings(**(_surroundings(environ) | settings))


def _surroundings(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the defaults that depend on where the program runs."""
    log_format = "console" if sys.stderr and sys.stderr.isatty() else "json"
    return {"data_dir": values.default_data_dir(environ), "log_format": log_format}


def _given(arguments: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Return what flags and environment say, by field: where it was said, and the value read."""
    given = {}
    for setting in fields(Settings):
        source, text = _flag(setting), getattr(arguments, setting.name)
        if text is None:
            source = variable(setting.name)
            text = environ.get(source) or None
        if text is not None:
            given[setting.name] = (source, _read(setting, source, text))
    return given


def _read(setting: "Field[Any]", source: str, text: str) -> Any:
    try:
        return setting.metadata["read"](text)
    except ValueError as rule:
        shown = values.without_password(text) if setting.name == "database_url" else text
        raise ValueError(f"{source}: {rule}, got {shown!r}") from None


def _check_together(command: str, given: Mapping[str, tuple[str, Any]]) -> None:
    """Check the rules that span several settings."""
    if "database_url" in given and "data_dir" in given:
        raise ValueError(f"{given['database_url'][0]} and {given['data_dir'][0]} exclude each other: give one")
    if command in _EMBEDDED and "database_url" not in given:
        raise ValueError(f"--database-url: {command} needs it ({_EMBEDDED[command]})")
    source, listen = given.get("listen", ("--listen", ""))
    allowed = given.get("allow_unauthenticated", ("", False))[1]
    if command == "serve" and listen and not allowed and not values.is_loopback(listen):
        raise ValueError(
            f"{source}: {listen!r} is reachable from other machines, and callers are not authenticated yet:"
            " whoever reaches the port may read and change everything. Listen on loopback,"
            " or say --allow-unauthenticated"
        )


def variable(name: str) -> str:
    """Return the environment variable of a field."""
    return ENVIRONMENT_PREFIX + name.upper()


def _flag(setting: "Field[Any]") -> str:
    return "--" + setting.name.replace("_", "-")


def _parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="session-service", description="Keeps the conversations of AI agents.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    documented = _documentation()
    defaults = _surroundings(environ)
    for command, purpose in COMMANDS.items():
        subparser = commands.add_parser(command, help=purpose, description=purpose, allow_abbrev=False)
        for setting in fields(Settings):
            default = defaults.get(setting.name, setting.default)
            _add_flag(subparser, setting, documented.get(setting.name, ""), default)
        if command == "pack":
            told = "Also what was saved just now: the same as --pack-after 0."
            subparser.add_argument("--now", dest="pack_after", action="store_const", const="0", help=told)
    return parser


def _add_flag(parser: argparse.ArgumentParser, setting: "Field[Any]", documented: str, default: object) -> None:
    shown = "" if default is None or default is MISSING else f"; default {default}"
    text = f"{documented} [{variable(setting.name)}{shown}]".replace("%", "%%")
    if setting.type in (bool, "bool"):
        # As text, like a variable's, so that one rule reads both.
        parser.add_argument(_flag(setting), nargs="?", const="true", metavar="true|false", help=text)
    else:
        parser.add_argument(_flag(setting), metavar=setting.name.rpartition("_")[2].upper(), help=text)


def _documentation() -> dict[str, str]:
    """Return the text beneath each field, read from the source, so that it is written once."""
    try:
        tree = ast.parse(inspect.getsource(Settings))
    except OSError:  # installed without sources: --help has names and defaults only
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    return {
        named.target.id: text.value.value
        for named, text in pairwise(body)
        if isinstance(named, ast.AnnAssign) and isinstance(named.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def _refuse(parser: argparse.ArgumentParser, message: str) -> NoReturn:
    parser.exit(2, f"{parser.prog}: error: {message}\n")
