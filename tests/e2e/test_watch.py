"""WatchSessions over the wire: what a client sees of it, and operations with grpcurl."""

import asyncio
import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_pb2 import EventType
from agent_sessions.v1.session_service_pb2_grpc import SessionServiceStub
from grpc import StatusCode

from tests.faults.database import query
from tests.faults.metrics import value_of
from tests.fixtures.conversations import conversation
from tests.fixtures.refusals import read_refusal
from tests.fixtures.servers import ServerFactory, ServerProcess

ALL = [
    EventType.EVENT_TYPE_SAVED,
    EventType.EVENT_TYPE_RESTORED,
    EventType.EVENT_TYPE_DELETED,
    EventType.EVENT_TYPE_UNDELETED,
]
KIND = pb.WatchSessionsResponse.DESCRIPTOR.oneofs_by_name["message"].name


class Watch:
    """One stream; the thread that reads it is gRPC's own."""

    def __init__(self, stub: Any, **fields: Any) -> None:
        self._call = stub.WatchSessions(pb.WatchSessionsRequest(**fields), timeout=60)
        self.token = b""

    def next(self) -> Any:
        message = next(self._call)
        self.token = message.resume_token
        return message

    def created(self) -> "Watch":
        assert self.next().WhichOneof(KIND) == "created"
        return self

    def event(self) -> Any:
        while True:
            message = self.next()
            if message.HasField("event"):
                return message.event
            assert message.HasField("bookmark")

    def bookmark(self) -> None:
        assert self.next().WhichOneof(KIND) == "bookmark"

    def error(self) -> Any:
        try:
            while True:
                self.next()
        except grpc.RpcError as error:
            return read_refusal(error)

    def cancel(self) -> None:
        self._call.cancel()


@pytest.fixture
def pair(server: ServerFactory, database_url: str) -> Iterator[tuple[Any, Any]]:
    """Stubs of two servers of one database."""
    flags = ("--watch-bookmark-interval=0.2",)
    servers = [server(*flags, database_url=database_url) for _ in range(2)]
    channels = [grpc.insecure_channel(one.address) for one in servers]
    yield SessionServiceStub(channels[0]), SessionServiceStub(channels[1])
    for channel in channels:
        channel.close()


def save(stub: Any, name: str = "s", agent: str = "a", **fields: Any) -> Any:
    return stub.SaveSession(
        pb.SaveSessionRequest(agent_id=agent, session_name=name, snapshot=conversation("x"), **fields), timeout=30
    )


def restore(stub: Any, name: str = "s", agent: str = "a", **fields: Any) -> Any:
    return stub.RestoreSession(pb.RestoreSessionRequest(agent_id=agent, session_name=name, **fields), timeout=30)


def named(session: str = "s", agent: str = "a") -> dict[str, Any]:
    return {"agent_id": agent, "session_name": session}


def test_a_restore_on_one_server_reaches_a_watcher_on_the_other(pair: tuple[Any, Any]) -> None:
    here, there = pair
    save(here)
    watch = Watch(there).created()
    restored = restore(here, revision=1, client_id="operator", request_id="5f4de2c4-8ac6-4d2c-9a8e-0d1f3f6f2f10")
    event = watch.event()
    assert (event.type, event.agent_id, event.session_name) == (EventType.EVENT_TYPE_RESTORED, "a", "s")
    assert (event.revision, event.client_id, event.actor) == (1, "operator", "anonymous")
    assert event.request_id == "5f4de2c4-8ac6-4d2c-9a8e-0d1f3f6f2f10"
    assert event.create_time == restored.session.last_restore_time
    assert len(event.event_id) == 36
    watch.bookmark()
    watch.cancel()


def test_everything_that_happens_in_order(pair: tuple[Any, Any]) -> None:
    here, there = pair
    watch = Watch(there, types=ALL, **named()).created()
    save(here)
    save(there)
    save(here, "other")
    restore(there)
    here.DeleteSession(pb.DeleteSessionRequest(**named()), timeout=30)
    there.UndeleteSession(pb.UndeleteSessionRequest(**named()), timeout=30)
    list(there.DownloadSession(pb.DownloadSessionRequest(**named()), timeout=30))
    list(there.DownloadSession(pb.DownloadSessionRequest(**named(), read_only=True), timeout=30))
    there.UploadSession(
        iter([pb.UploadSessionRequest(header=pb.SaveSessionRequest(**named(), snapshot=conversation("y")))]), timeout=30
    )
    here.DeleteSession(pb.DeleteSessionRequest(**named(), purge=True), timeout=30)
    kinds = [
        (EventType.Name(event.type).removeprefix("EVENT_TYPE_"), event.revision)
        for event in (watch.event() for _ in range(8))
    ]
    assert kinds == [
        ("SAVED", 1),
        ("SAVED", 2),
        ("RESTORED", 2),
        ("DELETED", 2),
        ("UNDELETED", 2),
        ("RESTORED", 2),
        ("SAVED", 3),
        ("DELETED", 3),
    ]
    watch.cancel()


def test_a_repeated_restore_is_one_event(pair: tuple[Any, Any]) -> None:
    here, there = pair
    save(here)
    watch = Watch(there).created()
    for stub in (here, there, here):
        restore(stub, request_id="5f4de2c4-8ac6-4d2c-9a8e-0d1f3f6f2f11")
    restore(here, client_id="last")
    assert [watch.event().client_id, watch.event().client_id] == ["", "last"]
    watch.cancel()


def test_a_token_goes_on_with_any_server(pair: tuple[Any, Any]) -> None:
    here, there = pair
    save(here)
    first = Watch(here).created()
    restore(here, client_id="1")
    assert first.event().client_id == "1"
    first.cancel()
    for number in "23":
        restore(here, client_id=number)
    again = Watch(there, resume_token=first.token).created()
    restore(there, client_id="4")
    assert [again.event().client_id for _ in range(3)] == ["2", "3", "4"]
    again.cancel()


def test_only_what_was_asked_for(pair: tuple[Any, Any]) -> None:
    here, there = pair
    names = [("s", "a"), ("t", "a"), ("s", "b")]
    for name, agent in names:
        save(here, name, agent)
    watches = [
        Watch(there).created(),
        Watch(there, agent_id="a").created(),
        Watch(there, **named()).created(),
        Watch(there, **named("none yet")).created(),
    ]
    for name, agent in names:
        restore(here, name, agent)
    save(here, "none yet")
    restore(here, "none yet")
    expected = [[*names, ("none yet", "a")], [*names[:2], ("none yet", "a")], names[:1], [("none yet", "a")]]
    for watch, wanted in zip(watches, expected, strict=True):
        found = [watch.event() for _ in wanted]
        assert [(event.session_name, event.agent_id) for event in found] == wanted
        watch.cancel()


@pytest.mark.parametrize(
    ("request_fields", "field", "told"),
    [
        ({"session_name": "s"}, "agent_id", "required"),
        ({"agent_id": "n" * 256}, "agent_id", "255"),
        ({"agent_id": "a", "session_name": "\x1f"}, "session_name", "U+001F"),
        ({"types": [2, 0]}, "types[1]", "1, 2, 3, 4, got 0"),
        ({"types": [9]}, "types[0]", "got 9"),
        ({"types": [2] * 65}, "types", "at most 64 entries, got 65"),
    ],
)
def test_bad_requests(stub: Any, request_fields: dict[str, Any], field: str, told: str) -> None:
    refused = Watch(stub, **request_fields).error()
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refused.fields) == [field]
    assert told in refused.message


def test_a_token_that_is_not_ours(stub: Any) -> None:
    refused = Watch(stub, resume_token=b"made up").error()
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN")
    assert "7 bytes" in refused.message


@pytest.fixture
def stub(shared_server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(shared_server.address) as channel:
        yield SessionServiceStub(channel)


def test_a_server_that_shuts_down_ends_its_streams(server: ServerFactory, database_url: str) -> None:
    one = server(database_url=database_url)
    with grpc.insecure_channel(one.address) as channel:
        watches = [Watch(SessionServiceStub(channel)).created() for _ in range(3)]
        stopped = threading.Thread(target=one.stop)
        stopped.start()
        for watch in watches:
            ended = watch.error()
            assert (ended.code, ended.reason) == (StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
            assert ended.retry_after
        stopped.join()
    assert one.wait() == 0


def test_an_expired_token_tells_the_oldest(server: ServerFactory, database_url: str) -> None:
    one = server(database_url=database_url)
    with grpc.insecure_channel(one.address) as channel:
        stub = SessionServiceStub(channel)
        save(stub)
        first = Watch(stub).created()
        restore(stub)
        first.event()
        first.cancel()
        started = first.token
        restore(stub)
        asyncio.run(
            query(
                database_url,
                "UPDATE log_state SET (horizon_xid, horizon_seq) ="
                " (SELECT xid, seq FROM session_events ORDER BY xid DESC, seq DESC LIMIT 1)",
            )
        )
        expired = Watch(stub, resume_token=started).error()
        assert (expired.code, expired.reason) == (StatusCode.OUT_OF_RANGE, "CURSOR_EXPIRED")
        again = Watch(stub, resume_token=base64.b64decode(expired.metadata["oldest_resume_token"])).created()
        restore(stub, client_id="later")
        assert again.event().client_id == "later"
        again.cancel()


def test_no_more_watches_than_the_setting_says(server: ServerFactory, database_url: str) -> None:
    one = server("--max-watches=1", database_url=database_url)
    with grpc.insecure_channel(one.address) as channel:
        stub = SessionServiceStub(channel)
        first = Watch(stub).created()
        refused = Watch(stub).error()
        assert (refused.code, refused.reason) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES")
        assert refused.metadata == {"limit": "1"}
        assert refused.retry_after
        first.cancel()


def test_metrics(server: ServerFactory, database_url: str) -> None:
    one = server("--watch-bookmark-interval=0.1", database_url=database_url)
    with grpc.insecure_channel(one.address) as channel:
        stub = SessionServiceStub(channel)
        save(stub)
        watch = Watch(stub).created()
        watch.bookmark()  # from now on the feed reads for it
        restore(stub)
        watch.event()
        watch.bookmark()
        token = watch.token
        watch.cancel()
        again = Watch(stub, resume_token=token).created()
        again.bookmark()
        found = {
            name: value_of(one, f"session_service_{name}")
            for name in (
                "watches",
                "events_delivered_total",
                "event_lag_seconds_count",
                "event_lag_seconds_sum",
                "feed_events_total",
                "feed_read_seconds_count",
                'watch_replays_total{reason="resumed"}',
                "event_watermark_age_seconds",
            )
        }
        again.cancel()
    assert found.pop("watches") >= 1
    assert found.pop("event_lag_seconds_sum") > 0
    assert found.pop("feed_read_seconds_count") > 1
    assert found.pop("event_watermark_age_seconds") < 10
    assert set(found.values()) == {1}


def test_grpcurl_shows_a_watch(grpcurl: Path, server: ServerFactory, database_url: str) -> None:
    """Two terminals: one watches, the other restores."""
    one = server("--watch-bookmark-interval=0.3", database_url=database_url)
    service = "agent_sessions.v1.SessionService"
    command = [str(grpcurl), "-plaintext", "-max-time", "30"]

    def call(rpc: str, request: Any) -> None:
        subprocess.run(
            [*command, "-d", json.dumps(request), one.address, f"{service}/{rpc}"],
            check=True,
            timeout=60,
            capture_output=True,
        )

    call("SaveSession", {**named(), "snapshot": {}})
    with subprocess.Popen(
        [*command, "-d", "{}", one.address, f"{service}/WatchSessions"], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        documents = json_documents(watching.stdout)
        created = next(documents)
        assert created["created"] == {}
        call("RestoreSession", {**named(), "client_id": "operator"})
        event = next(one for one in documents if "event" in one)
        assert event["event"]["type"] == "EVENT_TYPE_RESTORED"
        assert event["event"]["client_id"] == "operator"
        assert next(documents)["bookmark"] == {}
        assert created["resume_token"] != event["resume_token"]
        watching.terminate()


def json_documents(lines: Any) -> Iterator[Any]:
    """Give documents as they are complete."""
    text = ""
    for line in lines:
        text += line
        try:
            document = json.loads(text)
        except ValueError:
            continue
        yield document
        text = ""
