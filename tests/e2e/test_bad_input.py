"""Every refusal: its status, its reason, the field, the limit and the value; and nothing is stored."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from agent_sessions.v1 import session_service_pb2 as pb
from grpc import StatusCode

from tests.fixtures.bad_requests import ALL_NAMED, INVALID, REVISIONS, TABLE, Bad, many, named, save
from tests.fixtures.conversations import conversation
from tests.fixtures.refusals import refusal
from tests.fixtures.shared_server import Database, Wire

LIMIT = 4 * 1024 * 1024
"""Bytes of a request, by default."""


@pytest.fixture(scope="module", autouse=True)
def one_session(wire: Wire) -> None:
    """Make the session that good requests would find."""
    wire.stub.SaveSession(save(conversation("good")))


@pytest.fixture(autouse=True)
def nothing_is_stored(one_session: None, shared_database: Database) -> Iterator[None]:
    """Compare the row counts of all tables, and the one session, before and after."""

    def stored() -> tuple[Any, ...]:
        return shared_database.row_counts(), *map(tuple, shared_database.fetch("SELECT * FROM sessions"))

    before = stored()
    assert before[0]["revisions"] == before[0]["session_events"] == 1
    yield
    assert stored() == before


@pytest.mark.parametrize("bad", [pytest.param(bad, id=ascii(bad.id)) for bad in TABLE])
def test_refused(wire: Wire, bad: Bad) -> None:
    refused = refusal(getattr(wire.stub, bad.method), bad.request, timeout=30)
    assert (refused.code, refused.reason) == (bad.code, bad.reason)
    assert list(refused.fields) == ([bad.field] if bad.field else [])
    assert all(part in refused.message for part in (*bad.told, bad.field))
    assert refused.request_id
    assert refused.retry_after is None
    for name, value in bad.metadata.items():
        assert refused.metadata[name] == value


def test_the_table_is_right_about_what_is_good(wire: Wire, shared_database: Database) -> None:
    """Else a server that refuses everything would pass."""
    reads = [
        pb.GetSessionRequest(agent_id="a", session_name="s"),
        pb.GetRevisionRequest(agent_id="a", session_name="s", revision=0, view=pb.REVISION_VIEW_FULL, message_limit=1),
        pb.ListSessionsRequest(agent_id="a", order_by="name desc", labels=many(64), user_id="u" * 255),
        pb.ListRevisionsRequest(agent_id="a", session_name="s", order_by="revision", metadata=many(64)),
    ]
    for request in reads:
        getattr(wire.stub, type(request).__name__.removesuffix("Request"))(request, timeout=30)


def test_what_is_missing_is_named(wire: Wire) -> None:
    for kind in ALL_NAMED:
        method = getattr(wire.stub, kind.__name__.removesuffix("Request"))
        for request in (named(kind, session_name="none"), named(kind, agent_id="nobody")):
            refused = refusal(method, request, timeout=30)
            assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
            assert refused.metadata == {"agent_id": request.agent_id, "session_name": request.session_name}
            assert f"agents/{request.agent_id}/sessions/{request.session_name}" in refused.message
        wide = refusal(method, named(kind, agent_id="🙂" * 255, session_name="🙂" * 255), timeout=30)
        assert wide.reason == "SESSION_NOT_FOUND"
    for kind in REVISIONS:
        method = getattr(wire.stub, kind.__name__.removesuffix("Request"))
        for request, told in ((named(kind, revision=2), "revision 2"), (named(kind, checkpoint_id="c"), "'c'")):
            refused = refusal(method, request, timeout=30)
            assert (refused.code, refused.reason) == (StatusCode.NOT_FOUND, "REVISION_NOT_FOUND")
            assert told in refused.message


# ---- what never becomes a request


def test_a_request_above_the_limit_is_told_with_both_sizes(wire: Wire) -> None:
    request = save(conversation("x" * 5_000_000))
    refused = refusal(wire.stub.SaveSession, request, timeout=30)
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert refused.metadata == {"limit": str(LIMIT), "actual": str(request.ByteSize())}
    assert all(number in refused.message for number in refused.metadata.values())
    assert refused.retry_after is None


def test_the_limit_itself_is_exact(wire: Wire) -> None:
    """One byte above is refused for its size, the limit itself for another reason."""
    request = save(conversation("x"), expected_revision=9)
    request.snapshot.message_history[0].text = "x" * (LIMIT - request.ByteSize() - 100)
    request.snapshot.message_history[0].text += "x" * (LIMIT - request.ByteSize())
    assert request.ByteSize() == LIMIT
    assert refusal(wire.stub.SaveSession, request, timeout=30).reason == "REVISION_MISMATCH"
    request.snapshot.message_history[0].text += "x"
    assert refusal(wire.stub.SaveSession, request, timeout=30).reason == "MESSAGE_TOO_LARGE"


def test_a_request_beyond_the_transport_is_refused_as_well(wire: Wire) -> None:
    """The transport's own limit lies far above ours; its refusal names both sizes, but has no details."""
    transport_limit = 4 * LIMIT + 1024 * 1024
    request = save(conversation("x" * (transport_limit - 100)))
    assert refusal(wire.stub.SaveSession, request, timeout=60).reason == "MESSAGE_TOO_LARGE"
    request.snapshot.message_history[0].text += "x" * 100
    refused = refusal(wire.stub.SaveSession, request, timeout=60)
    assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "")
    assert str(transport_limit) in refused.message
    assert str(request.ByteSize()) in refused.message
    wire.stub.GetSession(named(pb.GetSessionRequest), timeout=30)


INVALID_UTF8 = b"\x0a\x02\xc3\x28"  # agent_id
UNDECODABLE = {
    "cut off": save().SerializeToString()[:-1],
    "noise": b"\xff" * 64,
    "wrong wire type": b"\x0b",
    "field number 0": b"\x00\x00",
    "endless varint": b"\x28" + b"\xff" * 11,
    "text": b"GET / HTTP/1.1",
    "invalid UTF-8 in a name": INVALID_UTF8,
    "invalid UTF-8 in a text": b"\x0a\x01a\x12\x01s\x1a\x06\x12\x04\x22\x02\xc3\x28",
    "a surrogate as UTF-8": b"\x0a\x03\xed\xa0\x80",
    "too deep": b"\xa3\x06" * 200 + b"\xa4\x06" * 200,
}


@pytest.mark.parametrize("data", UNDECODABLE.values(), ids=UNDECODABLE.keys())
def test_undecodable_bytes(wire: Wire, data: bytes) -> None:
    refused = refusal(wire.send, "SaveSession", data)
    assert (refused.code, refused.reason) == (INVALID, "UNDECODABLE_REQUEST")
    assert str(len(data)) in refused.message
    assert "SaveSession" in refused.message


def test_an_empty_request_is_decodable(wire: Wire) -> None:
    assert list(refusal(wire.send, "SaveSession", b"").fields) == ["agent_id"]
    assert pb.ListSessionsResponse.FromString(wire.send("ListSessions", b"")).sessions


@pytest.mark.parametrize(
    ("service", "method"),
    [
        ("agent_sessions.v1.SessionService", "DropEverything"),
        ("agent_sessions.v1.NoService", "SaveSession"),
        ("agent_sessions.v1.SessionService", "savesession"),
        ("agent_sessions.v1.SessionService", "x" * 2000),
    ],
)
def test_an_unknown_method(wire: Wire, service: str, method: str) -> None:
    refused = refusal(wire.send, method, save().SerializeToString(), service)
    assert (refused.code, refused.reason) == (StatusCode.UNIMPLEMENTED, "METHOD_NOT_FOUND")
    assert f"/{service}/{method}"[:256] in refused.message


def test_a_streamed_call_of_a_unary_method_is_refused(wire: Wire) -> None:
    call: Any = wire.channel.stream_unary(
        "/agent_sessions.v1.SessionService/SaveSession", pb.SaveSessionRequest.SerializeToString
    )
    with pytest.raises(grpc.RpcError) as failed:
        call(iter([save(agent_id=""), save(agent_id="")]), timeout=30)
    assert failed.value.code() in (INVALID, StatusCode.INTERNAL, StatusCode.UNIMPLEMENTED)
