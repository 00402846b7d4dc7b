"""Aware datetimes as protobuf Timestamps, and back, exactly."""

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from agent_sessions.errors import UnsupportedValue

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = datetime.min.replace(tzinfo=UTC) - _EPOCH
_LATEST = datetime.max.replace(tzinfo=UTC) - _EPOCH
_DAY = 86_400


def to_timestamp(moment: datetime | Timestamp, path: str = "") -> Timestamp:
    """Return the same instant as a Timestamp; a Timestamp is copied untouched.

    Raises UnsupportedValue, naming `path`, for a naive datetime, one outside the
    years 1 to 9999 in UTC, or one finer than a microsecond (some subclasses are).
    """
    if isinstance(moment, Timestamp):
        copy = Timestamp()
        copy.CopyFrom(moment)
        return copy
    since = _since_epoch(moment, path)
    return Timestamp(seconds=since.days * _DAY + since.seconds, nanos=since.microseconds * 1000)


def from_timestamp(stamp: Timestamp) -> datetime | Timestamp:
    """Return the instant as a datetime in UTC, or a copy of `stamp` if a datetime cannot hold it.

    A datetime counts microseconds: a Timestamp with nanoseconds beyond that stays one.
    """
    if 0 <= stamp.nanos < 1_000_000_000 and stamp.nanos % 1000 == 0:
        seconds = stamp.seconds
        if _EARLIEST.days * _DAY <= seconds <= _LATEST.days * _DAY + _LATEST.seconds:
            return _EPOCH + timedelta(seconds=seconds, microseconds=stamp.nanos // 1000)
    return to_timestamp(stamp)


def to_utc(moment: datetime, path: str = "") -> datetime:
    """Return the same instant in UTC; raises as `to_timestamp` does."""
    return _EPOCH + _since_epoch(moment, path)


def _since_epoch(moment: datetime, path: str) -> timedelta:
    if moment.utcoffset() is None:
        raise UnsupportedValue("a naive datetime does not tell an instant; give it a tzinfo", path)
    since = datetime.__sub__(moment, _EPOCH)
    if getattr(moment, "nanosecond", 0):
        raise UnsupportedValue("finer than a microsecond; give a protobuf Timestamp", path)
    if not _EARLIEST <= since <= _LATEST:
        raise UnsupportedValue("outside the years 1 to 9999 in UTC", path)
    return since
