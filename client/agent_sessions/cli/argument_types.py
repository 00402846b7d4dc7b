"""What single arguments may be. Each raises argparse.ArgumentTypeError with the rule that is broken."""

import base64
import math
from argparse import ArgumentTypeError
from collections.abc import Callable

from agent_sessions.watch import EventType

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


def text(value: str) -> str:
    """Accept text that is valid Unicode."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ArgumentTypeError("not valid UTF-8") from None
    return value


def whole_number(least: int, most: int = INT64_MAX) -> Callable[[str], int]:
    """Accept a whole number within the bounds."""

    def read(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ArgumentTypeError(f"a whole number is expected, not {value!r}") from None
        if not least <= number <= most:
            raise ArgumentTypeError(f"must be between {least} and {most}, not {number}")
        return number

    return read


def seconds(value: str) -> float:
    """Accept a positive number."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number <= 86_400:
        raise ArgumentTypeError(f"seconds are expected, above 0 and at most 86400, not {value!r}")
    return number


def address(value: str) -> str:
    """Accept HOST:PORT, [IPV6]:PORT or unix:PATH."""
    host, colon, port = text(value).rpartition(":")
    is_port = port.isascii() and port.isdigit() and int(port[:6]) <= 65_535
    if value.startswith("unix:") or (colon and host and is_port):
        return value
    raise ArgumentTypeError(f"HOST:PORT is expected, not {value!r}")


def pair(value: str) -> tuple[str, str]:
    """Accept KEY=VALUE."""
    key, equals, rest = text(value).partition("=")
    if not equals:
        raise ArgumentTypeError(f"KEY=VALUE is expected, not {value!r}")
    return key, rest


def event_types(value: str) -> list[EventType]:
    """Accept names of events, parted by commas."""
    try:
        return [EventType[name.strip().upper()] for name in value.split(",")]
    except KeyError:
        names = ", ".join(kind.name.lower() for kind in EventType)
        raise ArgumentTypeError(f"some of {names} are expected, parted by commas, not {value!r}") from None


def resume_token(value: str) -> bytes:
    """Accept base64."""
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:
        raise ArgumentTypeError("a token in base64 is expected, as --json prints it") from None
