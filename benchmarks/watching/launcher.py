"""Runs `session-service` with a part of watching taken out: `python -m benchmarks.watching.launcher PART serve …`.

deaf      the server hears no notifications, as behind a pooler in transaction mode
silent    it neither follows the log, nor notifies, nor hears: nothing can be watched
"""

import asyncio
import sys
from typing import Any

from session_service.__main__ import main
from session_service.events.feed import Feed
from session_service.postgres.event_hints import Listener, Notifier

MODULE = "benchmarks.watching.launcher"
DEAF, SILENT = "deaf", "silent"


async def _do_nothing(_: object) -> None:
    await asyncio.Event().wait()


def _tell_nobody(_: object, **_only_saves: Any) -> None:
    pass


def take_out(part: str) -> None:
    """Replace what a server does in the background; raises ValueError for an unknown part."""
    if part not in (DEAF, SILENT):
        raise ValueError(f"{part!r} is neither {DEAF} nor {SILENT}")
    kinds: list[Any] = [Listener] if part == DEAF else [Listener, Notifier, Feed]
    for kind in kinds:
        kind.run = _do_nothing
    if part == SILENT:
        setattr(Notifier, "tell", _tell_nobody)  # noqa: B010 - to a type checker, methods are not assigned to


if __name__ == "__main__":
    take_out(sys.argv.pop(1))
    main()
