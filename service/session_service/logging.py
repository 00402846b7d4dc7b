"""Log lines: structlog's straight to stderr, the standard library's through the same processors.

Ours do not go through the standard library: a line would cost several times as much.
"""

import contextlib
import json
import logging
import sys
from typing import Any

import structlog

_TEXT_LIMIT = 255


def configure(log_format: str, level: str) -> None:
    """Set logging up for this process.

    log_format: "json" (one object a line) or "console" (for people); level: the least severe that is written.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_shared(), *_rendering(log_format)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_NamedLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    # Its debug lines tell of every wake-up of the event loop.
    logging.getLogger("asyncio").setLevel(max(number, logging.INFO))


def printable(text: str) -> str:
    """Return a caller's text as a line may show it: bounded, and without control characters."""
    shown = text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


class _NamedLogger:
    """Writes lines to stderr; has the name that add_logger_name looks for."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    def _write(self, line: str) -> None:
        # Whoever read our lines may have gone; a call does not fail for that.
        with contextlib.suppress(OSError, ValueError, AttributeError):  # None if it was closed from the start
            sys.stderr.write(f"{line}\n")

    debug = info = warning = error = critical = _write


def _shared() -> list[Any]:
    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


_encoder = json.JSONEncoder(default=repr)


def _to_json(entry: object, **_: object) -> str:
    # By one encoder: json.dumps with a default makes another for every line.
    return _encoder.encode(entry)


def _rendering(log_format: str) -> list[Any]:
    if log_format == "json":
        last: list[Any] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
    else:
        # Plain tracebacks: the pretty ones show local variables, and so what callers sent.
        plain = structlog.dev.plain_traceback
        last = [
            structlog.dev.ConsoleRenderer(colors=bool(sys.stderr) and sys.stderr.isatty(), exception_formatter=plain)
        ]
    return last
