"""Instants survive exactly, or are refused."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from agent_sessions import (
    AgentState,
    State,
    UnsupportedValue,
)
from google.protobuf.timestamp_pb2 import Timestamp

from tests.unit.client.state_codec import CODEC, through_bytes


@pytest.mark.parametrize("place", ["created_at", "messages[0]['at']", "values['at']"])
def test_naive_datetimes_are_refused_by_name(place: str) -> None:
    naive = datetime(2026, 1, 1)
    state = {
        "created_at": State(created_at=naive),
        "messages[0]['at']": State(messages=[{"at": naive}]),
        "values['at']": State(values={"at": naive}),
    }[place]
    with pytest.raises(UnsupportedValue, match="naive") as caught:
        CODEC.encode(state)
    assert caught.value.path == place
    assert isinstance(caught.value, TypeError)


def test_offsets_keep_the_instant() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for fold in (0, 1):
        local = datetime(2026, 10, 25, 2, 30, 0, 123456, tzinfo=berlin, fold=fold)
        back = through_bytes(State(created_at=local, messages=[{"at": local}]))
        assert back.created_at == back.messages[0]["at"] == local.astimezone(UTC)


@pytest.mark.parametrize("nanos", [1, 123_456_789, 999_999_999])
def test_nanoseconds_survive(nanos: int) -> None:
    stamp = Timestamp(seconds=-5, nanos=nanos)
    assert CODEC.encode(State(created_at=stamp)).created_at == stamp
    assert through_bytes(State(created_at=stamp)).created_at == stamp


def test_a_timestamp_that_a_datetime_can_hold_becomes_one() -> None:
    assert through_bytes(State(created_at=Timestamp(seconds=1, nanos=2000))).created_at == datetime(
        1970, 1, 1, 0, 0, 1, 2, tzinfo=UTC
    )


@pytest.mark.parametrize("edge", [datetime.min, datetime.max])
def test_the_first_and_the_last_instant(edge: datetime) -> None:
    moment = edge.replace(tzinfo=UTC)
    assert through_bytes(State(created_at=moment)).created_at == moment
    beyond = edge.replace(tzinfo=timezone(timedelta(hours=1 if edge.year == 1 else -1)))
    with pytest.raises(UnsupportedValue, match="years"):
        CODEC.encode(State(created_at=beyond))


@pytest.mark.parametrize("seconds", [-(10**12), 10**12])
def test_a_timestamp_beyond_a_datetime_stays_one(seconds: int) -> None:
    stamp = Timestamp(seconds=seconds)
    assert CODEC.decode(AgentState(created_at=stamp)).created_at == stamp


def test_a_datetime_with_nanoseconds_is_refused() -> None:
    class Fine(datetime):
        nanosecond = 5

    with pytest.raises(UnsupportedValue, match="Timestamp"):
        CODEC.encode(State(created_at=Fine(2026, 1, 1, tzinfo=UTC)))
