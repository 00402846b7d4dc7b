"""Which event loop the process runs on."""

import asyncio
import importlib.util
from collections.abc import Callable


class NoSuchLoop(Exception):
    """The loop that was asked for is not installed."""


def factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the loop: "uvloop", "asyncio", or "auto": the first of them that is installed.

    Raises:
        NoSuchLoop: uvloop was asked for and is not there.
    """
    installed = importlib.util.find_spec("uvloop") is not None
    if name == "asyncio" or (name == "auto" and not installed):
        return asyncio.new_event_loop
    if not installed:
        raise NoSuchLoop("--event-loop: uvloop is not installed: pip install agent-session-service[uvloop]")
    import uvloop  # an extra

    return uvloop.new_event_loop
