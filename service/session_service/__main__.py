"""The command `session-service`: `serve`, `migrate`, `pack` and `verify`."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog

from session_service import event_loop, logging
from session_service.config import Settings, parse

_log = structlog.stdlib.get_logger(__name__)


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed (or damage found), 2 used wrongly."""
    command, settings = parse(sys.argv[1:], os.environ)
    logging.configure(settings.log_format, settings.log_level)
    # Its C core writes to stderr past every formatter; set the variable to see it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        with asyncio.Runner(loop_factory=event_loop.factory(settings.event_loop)) as runner:
            done = runner.run(_COMMANDS[command](settings))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        known = _is_expected(error)
        _log.critical(f"{command} failed", error=str(error) if known else repr(error), exc_info=not known)
        sys.exit(1)
    sys.exit(0 if done else 1)


async def _serve(settings: Settings) -> bool:
    from prometheus_client import disable_created_metrics

    from session_service.server import Server

    # They would be a second series for each counter, which nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    await Server(settings).run()
    return True


async def _migrate(settings: Settings) -> bool:
    from session_service.database_source import connecting
    from session_service.postgres.migrate import migrate

    assert settings.database_url is not None  # noqa: S101 - parse() demands it for this command
    with connecting(settings.database_url):
        applied = await migrate(settings.database_url, role=settings.database_role)
    for name in applied:
        _log.info("migration applied", migration=name)
    _log.info("the schema is up to date", applied=len(applied))
    return True


async def _pack(settings: Settings) -> bool:
    from session_service.pack_command import pack

    await pack(settings)
    return True


async def _verify(settings: Settings) -> bool:
    from session_service.verify import verify

    return await verify(settings, sys.stdout)


_COMMANDS: Mapping[str, Callable[[Settings], Coroutine[Any, Any, bool]]] = {
    "serve": _serve,
    "migrate": _migrate,
    "pack": _pack,
    "verify": _verify,
}
"""What each command does; True: all is well."""


def _is_expected(error: Exception) -> bool:
    """Tell whether the message alone helps: the service's own errors, but not bugs or driver errors."""
    return type(error).__module__.startswith("session_service.")


if __name__ == "__main__":
    main()
