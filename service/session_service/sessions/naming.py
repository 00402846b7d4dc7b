"""Names that the server gives to sessions saved without one."""

from collections.abc import Iterator
from datetime import UTC, datetime


def suggestions(now: datetime) -> Iterator[str]:
    """`session-<UTC timestamp>` to the microsecond, then the same followed by -2, -3 and so on."""
    name = f"session-{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1
