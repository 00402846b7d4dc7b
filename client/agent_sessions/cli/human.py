"""Sizes, times and maps the way people read them."""

from collections.abc import Mapping
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from agent_sessions.timestamps import from_timestamp

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size(count: float) -> str:
    """Return a number of bytes, for example `1.5 MiB`."""
    unit = 0
    while count >= 1024 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} B" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def time(stamp: Timestamp) -> str:
    """Return an instant in the local time zone, to the second."""
    moment = from_timestamp(stamp)
    if isinstance(moment, Timestamp):  # finer or wider than a datetime
        moment = from_timestamp(Timestamp(seconds=stamp.seconds))
    if not isinstance(moment, datetime):
        return f"{stamp.seconds} s"
    try:
        return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):  # the first and the last day of the calendar
        return f"{moment.isoformat(sep=' ', timespec='seconds')}"


def pairs(entries: Mapping[str, str]) -> str:
    """Return a map as `a=1 b=2`."""
    return " ".join(f"{key}={value}" for key, value in sorted(entries.items()))


def duration(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
