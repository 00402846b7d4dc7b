"""Sizes, times and durations as people read them."""

import time
from collections.abc import Iterator

import pytest
from agent_sessions.cli import human
from google.protobuf.timestamp_pb2 import Timestamp


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (5 * 2**50, "5120.0 TiB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert human.size(count) == shown


@pytest.mark.usefixtures("zone")
@pytest.mark.parametrize(
    ("stamp", "shown"),
    [
        (Timestamp(seconds=0), "1970-01-01 05:30:00"),
        (Timestamp(seconds=0, nanos=123_456_789), "1970-01-01 05:30:00"),
        (Timestamp(seconds=253_402_300_799), "9999-12-31 23:59:59+00:00"),
        (Timestamp(seconds=2**60), f"{2**60} s"),
    ],
)
def test_times_are_local_and_never_fail(stamp: Timestamp, shown: str) -> None:
    assert human.time(stamp) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03")])
def test_durations(seconds: float, shown: str) -> None:
    assert human.duration(seconds) == shown


def test_pairs() -> None:
    assert human.pairs({"b": "2", "a": "x=y"}) == "a=x=y b=2"
