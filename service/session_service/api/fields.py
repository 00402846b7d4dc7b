"""Checks of single request fields. Each raises InvalidField that names the field, the limit and the value."""

import re
from collections.abc import Mapping
from functools import lru_cache
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from session_service.sessions.errors import InvalidField
from session_service.sessions.model import NO_ENTRIES

NAME_LENGTH = 255
"""Characters of every name and identifier."""

TEXT_LENGTH = 1024
"""Characters of a label's or a metadata entry's value."""

MAX_ENTRIES = 64
"""Labels of a session; metadata entries of a revision."""

MAX_PAGE_SIZE = 1000
"""A larger page_size means this."""

DEFAULT_PAGE_SIZE = 50
"""What page_size 0 means."""

MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z: what google.protobuf.Timestamp allows."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def name(field: str, value: str) -> str:
    """A required name: 1 to 255 characters without control characters."""
    if not value:
        raise InvalidField(field, "is required")
    return optional_name(field, value)


def optional_name(field: str, value: str, limit: int = NAME_LENGTH) -> str:
    """A name that may be empty."""
    if not value:
        return value
    length(field, value, limit)
    if found := _CONTROL.search(value):
        where = f"U+{ord(found[0]):04X} at position {found.start()}"
        raise InvalidField(field, f"no control characters, got {where}", value)
    return value


def length(field: str, value: str, limit: int = NAME_LENGTH) -> None:
    """Any text, up to a length."""
    if len(value) > limit:
        raise InvalidField(field, f"at most {limit} characters ({len(value)} given)", value)


@lru_cache(maxsize=4096)  # a worker's saves all carry the same ones
def check_names(agent_id: str, session_name: str, client_id: str, user_id: str) -> None:
    """The names that most requests carry; all but the first may be empty."""
    name("agent_id", agent_id)
    optional_name("session_name", session_name)
    optional_name("client_id", client_id)
    optional_name("user_id", user_id)


def entries(field: str, given: Mapping[str, str]) -> Mapping[str, str]:
    """Labels or metadata: names to short texts."""
    if not given:
        return NO_ENTRIES
    if len(given) > MAX_ENTRIES:
        raise InvalidField(field, f"at most {MAX_ENTRIES} entries", len(given))
    for key, value in given.items():
        name(f"{field} key", key)
        optional_name(f"{field}[{key!r}]", value, TEXT_LENGTH)
    return dict(given)


def request_id(value: str) -> UUID | None:
    """A UUID in its usual form with hyphens, or empty."""
    if not value:
        return None
    if not _UUID.fullmatch(value):
        raise InvalidField("request_id", "must be a UUID such as 123e4567-e89b-12d3-a456-426614174000", value)
    return UUID(int=int(value.replace("-", ""), 16))


def not_negative(field: str, value: int) -> int:
    """A number from 0."""
    return at_least(field, value, 0)


def at_least(field: str, value: int, minimum: int) -> int:
    """A number from a minimum."""
    if value < minimum:
        raise InvalidField(field, f"must be {minimum} or more", value)
    return value


def page_size(value: int) -> int:
    """Rows of a page."""
    return min(not_negative("page_size", value) or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def timestamp(field: str, value: Timestamp) -> None:
    """A point in time between the years 1 and 9999, nanoseconds 0 to 999,999,999."""
    if not MIN_SECONDS <= value.seconds <= MAX_SECONDS:
        raise InvalidField(f"{field}.seconds", f"must be between {MIN_SECONDS} and {MAX_SECONDS}", value.seconds)
    if not 0 <= value.nanos <= 999_999_999:
        raise InvalidField(f"{field}.nanos", "must be between 0 and 999999999", value.nanos)


def known(field: str, value: int, numbers: Mapping[int, object]) -> int:
    """A number that an enum lists."""
    if value not in numbers:
        raise InvalidField(field, f"must be one of {', '.join(map(str, sorted(numbers)))}", value)
    return value
