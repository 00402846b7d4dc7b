"""A watch: what it delivers, how it goes on when streams break, and how it ends."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from agent_sessions import (
    NO_RETRY,
    ClientClosed,
    CursorExpired,
    EventType,
    InvalidField,
    SessionClient,
    SessionServiceError,
    ShuttingDown,
    Unavailable,
    Watch,
)
from agent_sessions import watch as module
from agent_sessions.v1 import session_pb2 as pb
from agent_sessions.v1 import session_service_pb2 as messages
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.scripted_server import Failure, ScriptedServer, WatchCall, expired, info, retry_after

SHUTTING_DOWN = Failure(StatusCode.UNAVAILABLE, "later", info("SHUTTING_DOWN"), retry_after(0.01))
SLOW = Failure(StatusCode.RESOURCE_EXHAUSTED, "slow", info("SLOW_WATCHER"), retry_after(0.01))
FULL = Failure(StatusCode.RESOURCE_EXHAUSTED, "full", info("TOO_MANY_WATCHES"), retry_after(0.01))
EXPIRED = expired("AAEC")
REFUSED = Failure(StatusCode.INVALID_ARGUMENT, "types: no", info("INVALID_FIELD", field="types"))


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[SessionClient]:
    async with SessionClient(server.target, retry=FAST) as client:
        yield client


async def first(watch: Watch) -> str:
    """Return the next event's id."""
    async with asyncio.timeout(5):
        return (await anext(watch)).event_id


class Consumer:
    """Reads a watch in a task of its own."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.ids: list[str] = []
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.watch:
            self.ids.append(event.event_id)
            self._changed.set()

    async def wait_for(self, *ids: str) -> None:
        async with asyncio.timeout(5):
            while self.ids != list(ids) and len(self.ids) < len(ids):
                self._changed.clear()
                await self._changed.wait()
        assert self.ids == list(ids)


async def test_what_is_asked_for_and_what_comes(server: ScriptedServer) -> None:
    async with SessionClient(server.target, metadata={"k": "v"}) as client:
        watch = client.watch("a", "s", types=[EventType.SAVED, EventType.DELETED], resume_token=b"t")
        assert server.watches.empty(), "nothing is opened before somebody waits"
        waiting = asyncio.create_task(anext(watch))
        call = await server.next_watch()
        call.created()
        call.event("e1", type=EventType.SAVED, agent_id="a", session_name="s", revision=3, client_id="w")
        event = await asyncio.wait_for(waiting, 5)
        await watch.aclose()
    request = call.request
    assert (request.agent_id, request.session_name, request.resume_token) == ("a", "s", b"t")
    assert list(request.types) == [pb.EVENT_TYPE_SAVED, pb.EVENT_TYPE_DELETED]
    assert call.metadata["k"] == "v"
    assert isinstance(event, pb.SessionEvent)
    assert (int(event.type), event.revision, event.client_id) == (EventType.SAVED, 3, "w")


async def test_by_default_restores_from_now_on(server: ScriptedServer, client: SessionClient) -> None:
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(client.watch().started())
        call = await server.next_watch()
        call.created()
    await starting
    request = messages.WatchSessionsRequest(types=[pb.EVENT_TYPE_RESTORED])
    assert call.request == request


async def test_entering_waits_until_the_server_watches(server: ScriptedServer, client: SessionClient) -> None:
    watch = client.watch("a")
    entering = asyncio.create_task(watch.__aenter__())
    call = await server.next_watch()
    await asyncio.wait({entering}, timeout=0.05)
    assert not entering.done()
    call.created()
    assert await asyncio.wait_for(entering, 5) is watch
    call.event("e1")
    assert await first(watch) == "e1"
    await watch.__aexit__(None, None, None)
    await asyncio.wait_for(call.gone.wait(), 5)
    with pytest.raises(StopAsyncIteration):
        await anext(watch)


@pytest.mark.parametrize(
    "end",
    [
        None,
        SHUTTING_DOWN,
        SLOW,
        FULL,
        Failure(StatusCode.UNAVAILABLE),
        Failure(StatusCode.ABORTED, "again", info("SERIALIZATION")),
        Failure(StatusCode.CANCELLED),
        Failure(StatusCode.INTERNAL, "RST_STREAM"),
        Failure(StatusCode.UNKNOWN, "Stream removed"),
        Failure(StatusCode.DEADLINE_EXCEEDED, "a proxy's"),
    ],
    ids=lambda end: end.message + end.code.name if end else "ok",
)
async def test_a_broken_stream_is_followed_by_another(
    server: ScriptedServer, client: SessionClient, end: Failure | None
) -> None:
    consumer = Consumer(client.watch("a", "s"))
    call = await server.next_watch()
    call.created("t0")
    call.event("e1")
    await consumer.wait_for("e1")
    call.bookmark("t2")
    call.end(end)
    again = await server.next_watch()
    assert again.request.resume_token == b"t2"
    assert (again.request.agent_id, again.request.session_name) == ("a", "s")
    assert isinstance(consumer.watch.last_error, SessionServiceError)
    again.created("t2")
    again.event("e3")
    await consumer.wait_for("e1", "e3")
    assert not consumer.watch.last_error
    await consumer.watch.aclose()
    await asyncio.wait_for(consumer.task, 5)


async def test_before_it_was_created_it_begins_anew(server: ScriptedServer, client: SessionClient) -> None:
    starting = asyncio.create_task(client.watch().started())
    for _ in range(3):
        call = await server.next_watch()
        assert call.request.resume_token == b""
        call.end(SHUTTING_DOWN)
    (await server.next_watch()).created()
    await asyncio.wait_for(starting, 5)


async def test_a_server_that_comes_back_is_found(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()

    def backoff(policy: Any, attempts: int) -> float:
        if attempts > 1:  # the stream broke, and there was nobody to open another
            failed.set()
        return 0.01

    monkeypatch.setattr(type(FAST), "backoff", backoff)
    watch = client.watch()
    consumer = Consumer(watch)
    (await server.next_watch()).created()
    await asyncio.wait_for(watch.started(), 5)
    await server.stop()
    await asyncio.wait_for(failed.wait(), 5)
    assert isinstance(watch.last_error, Unavailable)
    await server.start()
    call = await server.next_watch()
    assert call.request.resume_token == b"t0"
    call.created("t0")
    call.event("e1")
    await consumer.wait_for("e1")
    await watch.aclose()
    await consumer.task


@pytest.mark.parametrize("begun", [True, False], ids=["later", "from the beginning"])
async def test_a_stream_that_is_silent_is_given_up(server: ScriptedServer, client: SessionClient, begun: bool) -> None:
    calls: list[WatchCall] = []

    async def answer(call: WatchCall) -> None:
        calls.append(call)
        if begun or len(calls) > 1:
            call.created("t0")
        if len(calls) > 1:
            call.event("e1")

    server.on_watch = answer
    consumer = Consumer(client.watch(silence_timeout=0.2))
    await consumer.wait_for("e1")
    assert calls[1].request.resume_token == (b"t0" if begun else b"")
    await asyncio.wait_for(calls[0].gone.wait(), 5)
    await consumer.watch.aclose()
    await consumer.task


async def test_the_pauses_grow_until_there_is_news(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def backoff(policy: Any, attempts: int) -> float:
        asked.append(attempts)
        return 0.0

    monkeypatch.setattr(type(FAST), "backoff", backoff)
    consumer = Consumer(client.watch())
    for number in range(3):
        call = await server.next_watch()
        call.created("t0")  # no news: a server that ends every stream at once is not to be called in a loop
        call.end(SHUTTING_DOWN)
        assert len(asked) == number
        await asyncio.wait_for(call.gone.wait(), 5)
    call = await server.next_watch()
    assert asked == [1, 2, 3]
    call.bookmark("t1")
    call.end()
    await server.next_watch()
    assert asked == [1, 2, 3, 1]
    await consumer.watch.aclose()


async def test_the_servers_own_delay_is_waited_for(server: ScriptedServer, client: SessionClient) -> None:
    watch = client.watch()
    starting = asyncio.create_task(watch.started())
    call = await server.next_watch()
    call.end(Failure(StatusCode.UNAVAILABLE, "wait", retry_after(0.3)))
    begin = time.monotonic()
    (await server.next_watch()).created()
    assert time.monotonic() - begin > 0.25
    await starting


async def test_repeats_are_left_out(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED_EVENTS", 3)
    consumer = Consumer(client.watch())
    call = await server.next_watch()
    call.created()
    for number in range(5):
        call.event(f"t{number}", event_id=f"e{number}")
    call.end(SHUTTING_DOWN)
    call = await server.next_watch()
    call.created()
    call.event("u3", event_id="e3")
    call.event("u4", event_id="e4")
    call.event("u5", event_id="e5")
    await consumer.wait_for("e0", "e1", "e2", "e3", "e4", "e5")
    call.event("u6", event_id="e0")  # no more than the newest three are remembered
    await consumer.wait_for("e0", "e1", "e2", "e3", "e4", "e5", "e0")
    await consumer.watch.aclose()


async def test_what_is_not_known_is_skipped_and_its_token_kept(server: ScriptedServer, client: SessionClient) -> None:
    consumer = Consumer(client.watch())
    call = await server.next_watch()
    call.created()
    call.outgoing.put_nowait(messages.WatchSessionsResponse(resume_token=b"t1"))
    call.event("t2", type=99)
    call.end(SHUTTING_DOWN)
    call = await server.next_watch()
    assert call.request.resume_token == b"t2"
    call.created("t2")
    call.event("e3")
    await consumer.wait_for("e3")
    await consumer.watch.aclose()


async def test_the_token_moves_on_when_the_event_is_done_with(server: ScriptedServer, client: SessionClient) -> None:
    kept: list[bytes] = []
    watch = client.watch(keep_token=kept.append)
    waiting = asyncio.create_task(anext(watch))
    call = await server.next_watch()
    call.created("t0")
    call.bookmark("t1")
    call.event("t2", event_id="e2")
    await asyncio.wait_for(waiting, 5)
    assert (watch.resume_token, watch.event_token) == (b"t1", b"t2")
    assert kept == [b"t0", b"t1"]
    waiting = asyncio.create_task(anext(watch))
    call.bookmark("t2")  # no newer: not kept again
    call.event("t3", event_id="e3")
    await asyncio.wait_for(waiting, 5)
    assert (watch.resume_token, watch.event_token) == (b"t2", b"t3")
    assert kept == [b"t0", b"t1", b"t2"]
    await watch.aclose()
    assert watch.resume_token == b"t2", "nobody said that the last event was done with"


async def test_a_token_is_kept_before_the_next_event_is_given(server: ScriptedServer, client: SessionClient) -> None:
    order: list[str] = []
    may_keep = asyncio.Event()

    async def keep(token: bytes) -> None:
        order.append(f"keep {token.decode()}")
        await may_keep.wait()
        order.append(f"kept {token.decode()}")

    watch = client.watch(resume_token=b"t0", keep_token=keep)
    waiting = asyncio.create_task(anext(watch))
    call = await server.next_watch()
    call.created("t0")
    call.event("t1")
    call.event("t2")
    await asyncio.wait_for(waiting, 5)
    order.append("event t1")
    waiting = asyncio.create_task(anext(watch))
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()
    may_keep.set()
    await asyncio.wait_for(waiting, 5)
    order.append("event t2")
    assert order == ["event t1", "keep t1", "kept t1", "event t2"]
    await watch.aclose()


async def test_a_token_that_cannot_be_kept_ends_the_watch(server: ScriptedServer, client: SessionClient) -> None:
    def keep(token: bytes) -> None:
        raise OSError("disk full")

    consumer = Consumer(client.watch(keep_token=keep))
    call = await server.next_watch()
    call.created()
    with pytest.raises(OSError, match="disk full"):
        await asyncio.wait_for(consumer.task, 5)
    await asyncio.wait_for(call.gone.wait(), 5)


async def test_an_expired_cursor_is_raised_with_the_oldest_token(server: ScriptedServer, client: SessionClient) -> None:
    watch = client.watch(resume_token=b"old")
    starting = asyncio.create_task(watch.started())
    (await server.next_watch()).end(EXPIRED)
    with pytest.raises(CursorExpired) as caught:
        await asyncio.wait_for(starting, 5)
    assert caught.value.oldest_resume_token == b"\0\1\2"
    with pytest.raises(CursorExpired):
        await anext(watch)
    consumer = Consumer(client.watch(resume_token=caught.value.oldest_resume_token))
    call = await server.next_watch()
    assert call.request.resume_token == b"\0\1\2"
    call.created("t0")
    call.end(EXPIRED)
    with pytest.raises(CursorExpired):
        await asyncio.wait_for(consumer.task, 5)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [(REFUSED, InvalidField), (Failure(StatusCode.INTERNAL, "defect", info("INTERNAL")), Exception)],
)
async def test_what_does_not_pass_is_raised(
    server: ScriptedServer, client: SessionClient, failure: Failure, kind: type[Exception]
) -> None:
    async def enter() -> None:
        async with client.watch():
            pytest.fail("it was refused")

    entering = asyncio.create_task(enter())
    (await server.next_watch()).end(failure)
    with pytest.raises(kind):
        await asyncio.wait_for(entering, 5)


async def test_without_retries_the_first_break_is_raised(server: ScriptedServer) -> None:
    async with SessionClient(server.target, retry=NO_RETRY) as client:
        consumer = Consumer(client.watch())
        call = await server.next_watch()
        call.created()
        call.end(SHUTTING_DOWN)
        with pytest.raises(ShuttingDown):
            await asyncio.wait_for(consumer.task, 5)


@pytest.mark.parametrize("place", ["waiting for an event", "between two attempts", "before it was started"])
async def test_closing_the_client_ends_it(server: ScriptedServer, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pausing = asyncio.Event()

    def backoff(policy: Any, attempts: int) -> float:
        pausing.set()
        return 30.0

    monkeypatch.setattr(type(FAST), "backoff", backoff)
    client = SessionClient(server.target, retry=FAST)
    watch = client.watch()
    if place == "before it was started":
        await client.close()
        with pytest.raises(ClientClosed):
            await anext(watch)
        return
    consumer = Consumer(watch)
    call = await server.next_watch()
    call.created()
    if place == "between two attempts":
        call.end(SHUTTING_DOWN)
        await asyncio.wait_for(pausing.wait(), 5)
    await client.close()
    with pytest.raises(ClientClosed):
        await asyncio.wait_for(consumer.task, 5)
    with pytest.raises(ClientClosed):
        await watch.started()


async def test_a_client_that_does_not_own_its_channel_ends_it_too(server: ScriptedServer) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        client = SessionClient(channel=channel)
        consumer = Consumer(client.watch())
        call = await server.next_watch()
        call.created()
        await client.close()
        with pytest.raises(ClientClosed):
            await asyncio.wait_for(consumer.task, 5)
        await asyncio.wait_for(call.gone.wait(), 5)


async def test_a_channel_closed_by_its_owner_is_told(server: ScriptedServer) -> None:
    channel = grpc.aio.insecure_channel(server.target)
    client = SessionClient(channel=channel, retry=FAST)
    consumer = Consumer(client.watch())
    (await server.next_watch()).created()
    await channel.close()
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        await asyncio.wait_for(consumer.task, 5)
    await client.close()


async def test_a_cancelled_wait_loses_nothing(server: ScriptedServer, client: SessionClient) -> None:
    watch = client.watch()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(watch), 0.05)
    call = await server.next_watch()
    call.created()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watch), 0.01)
    call.event("e1")
    call.event("e2")
    assert [await first(watch), await first(watch)] == ["e1", "e2"]
    assert server.watches.empty(), "the stream is the same"
    waiting = asyncio.create_task(anext(watch))
    await asyncio.sleep(0)
    call.event("e3")
    while watch.event_token != b"e3":  # noqa: ASYNC110 – in the very moment when it has come …
        await asyncio.sleep(0)
    waiting.cancel()  # … and its reader goes in that moment
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await first(watch) == "e3"
    await watch.aclose()


async def test_only_one_waits_at_a_time(server: ScriptedServer, client: SessionClient) -> None:
    watch = client.watch()
    waiting = asyncio.create_task(anext(watch))
    await server.next_watch()
    with pytest.raises(RuntimeError, match="another"):
        await anext(watch)
    await watch.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_one_that_is_left_ends_its_stream(server: ScriptedServer, client: SessionClient) -> None:
    async def read_one() -> None:
        async for _ in client.watch():
            break

    reading = asyncio.create_task(read_one())
    call = await server.next_watch()
    call.created()
    call.event("e1")
    await asyncio.wait_for(reading, 5)
    gc.collect()
    await asyncio.wait_for(call.gone.wait(), 5)


async def test_closing_ends_a_loop_and_may_be_repeated(server: ScriptedServer, client: SessionClient) -> None:
    consumer = Consumer(client.watch())
    call = await server.next_watch()
    await consumer.watch.aclose()
    await consumer.watch.aclose()
    await asyncio.wait_for(consumer.task, 5)
    await asyncio.wait_for(call.gone.wait(), 5)
    await consumer.watch.started()


async def test_it_may_be_closed_by_what_keeps_the_token(server: ScriptedServer, client: SessionClient) -> None:
    async def keep(token: bytes) -> None:
        await watch.aclose()

    watch = client.watch(keep_token=keep)
    consumer = Consumer(watch)
    (await server.next_watch()).created()
    await asyncio.wait_for(consumer.task, 5)
