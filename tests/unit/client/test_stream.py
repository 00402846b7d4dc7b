"""Saves that share a stream: frames, answers, and what happens when the stream does not work."""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from agent_sessions import (
    NO_RETRY,
    ClientClosed,
    DeadlineExceeded,
    InvalidField,
    RevisionMismatch,
    SavedRevision,
    SessionClient,
    State,
    Unavailable,
)
from agent_sessions import stream as module
from agent_sessions.v1 import session_service_pb2 as messages
from google.protobuf.message import Message
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.scripted_server import Context, Failure, ScriptedServer, info, retry_after, saved

STATE = State(messages=["hello"])
KILOBYTE = State(messages=["x" * 1000])


@pytest.fixture
def stream() -> bool:
    """Make every test's client one that streams."""
    return True


async def save_many(client: SessionClient, count: int, state: State = STATE) -> list[SavedRevision]:
    return await asyncio.gather(*(client.save("a", f"s{n}", state) for n in range(count)))


def names(server: ScriptedServer) -> list[str]:
    return [request.session_name for request in server.requests]


def failing(code: StatusCode, *details: Message) -> Callable[[Any, Context], AsyncIterator[Message]]:
    """Return a stream that ends at once."""

    async def behave(frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        failure = Failure(code, "no stream", *details)
        context.set_trailing_metadata(failure.trailing_metadata())
        async for _ in frames:
            await context.abort(code, "no stream")
        yield saved()

    return behave


class Held:
    """A stream that takes frames and answers when it is told to."""

    def __init__(self) -> None:
        self.taken: list[Any] = []
        self.changed = asyncio.Event()
        self.go_on = asyncio.Event()
        self.gone = asyncio.Event()

    async def behave(self, frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        reader = asyncio.create_task(self._read(frames))
        answered = 0
        try:
            while True:
                await self.go_on.wait()
                while answered < len(self.taken):
                    result = messages.SaveResult(request_id=self.taken[answered].request_id, response=saved())
                    yield messages.SaveSessionsResponse(results=[result])
                    answered += 1
                if reader.done():
                    return
                self.changed.clear()
                await self.changed.wait()
        finally:
            self.gone.set()
            reader.cancel()

    async def _read(self, frames: AsyncIterator[Any]) -> None:
        async for frame in frames:
            self.taken += [framed.request for framed in frame.saves]
            self.changed.set()
        self.changed.set()

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.taken) < count:
                self.changed.clear()
                await self.changed.wait()


async def test_what_waits_goes_into_the_next_frame(server: ScriptedServer, client: SessionClient) -> None:
    await save_many(client, 100)
    assert names(server) == [f"s{n}" for n in range(100)]
    assert (server.streams, server.unary) == (1, 0)
    assert len(server.frames) < 10


async def test_frames_are_bounded_and_large_saves_go_alone(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FRAME_BYTES", 5_000)
    async with SessionClient(server.target) as client:
        await save_many(client, 40, KILOBYTE)
        assert sorted(names(server)) == sorted(f"s{n}" for n in range(40))
        assert max(frame.ByteSize() for frame in server.frames) <= 5_000
        assert max(len(frame.saves) for frame in server.frames) > 1
        assert server.unary == 0
        await client.save("a", "large", State(messages=["x" * 6_000]))
        assert server.unary == 1


async def test_each_save_has_its_own_error(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [
        Failure(StatusCode.ABORTED, "no", info("REVISION_MISMATCH", current_revision="3")),
        saved(2),
        Failure(StatusCode.INVALID_ARGUMENT, "labels: too many", info("INVALID_FIELD", field="labels")),
        saved(4),
    ]
    results = await asyncio.gather(*(client.save("a", f"s{n}", STATE) for n in range(4)), return_exceptions=True)
    mismatch, second, invalid, fourth = results
    assert isinstance(mismatch, RevisionMismatch)
    assert (mismatch.current_revision, mismatch.reason, mismatch.code) == (3, "REVISION_MISMATCH", StatusCode.ABORTED)
    assert isinstance(invalid, InvalidField)
    assert (invalid.field, invalid.field_violations[0].description) == ("labels", "too many")
    assert isinstance(second, SavedRevision)
    assert isinstance(fourth, SavedRevision)
    assert (second.revision.revision, fourth.revision.revision, server.streams) == (2, 4, 1)


async def test_a_retry_delay_is_read(server: ScriptedServer) -> None:
    server.script = [Failure(StatusCode.UNAVAILABLE, "wait", info("DATABASE_UNAVAILABLE"), retry_after(1.25))]
    async with SessionClient(server.target, retry=NO_RETRY) as client:
        with pytest.raises(Unavailable) as caught:
            await client.save("a", "s", STATE)
    assert (caught.value.retry_delay, dict(caught.value.metadata)) == (1.25, {})


async def test_no_more_than_a_bound_is_in_flight(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 4)
    held = Held()
    server.stream_script = [held.behave]
    saves = asyncio.create_task(save_many(client, 10))
    await held.wait_for(4)
    # A call and its answer go over the same connection: what was sent before them has arrived.
    await client.delete("a", "s")
    assert len(held.taken) == 4
    held.go_on.set()
    assert len(await asyncio.wait_for(saves, 5)) == 10
    assert [request.session_name for request in held.taken] == [f"s{n}" for n in range(10)]


async def test_a_save_whose_caller_has_gone_before_it_was_sent_is_not_sent(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 1)
    held = Held()
    server.stream_script = [held.behave]
    calls = [asyncio.create_task(client.save("a", f"s{n}", STATE)) for n in range(3)]
    await held.wait_for(1)
    calls[1].cancel()
    held.go_on.set()
    await asyncio.wait_for(asyncio.wait(calls), 5)
    assert [request.session_name for request in held.taken] == ["s0", "s2"]


async def test_a_cancelled_save_stays_in_flight_and_harms_nobody(server: ScriptedServer, client: SessionClient) -> None:
    held = Held()
    server.stream_script = [held.behave]
    calls = [asyncio.create_task(client.save("a", f"s{n}", STATE)) for n in range(3)]
    await held.wait_for(3)
    calls[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    held.go_on.set()
    await asyncio.wait_for(asyncio.gather(calls[0], calls[2]), 5)
    await client.save("a", "s3", STATE)
    assert (server.streams, len(held.taken)) == (1, 4)


async def test_a_timeout_is_one_saves_and_not_the_streams(server: ScriptedServer, client: SessionClient) -> None:
    held = Held()
    server.stream_script = [held.behave]
    slow = asyncio.create_task(client.save("a", "slow", STATE, timeout=5))
    with pytest.raises(DeadlineExceeded):
        await client.save("a", "hasty", STATE, timeout=0.1)
    held.go_on.set()
    held.changed.set()
    await asyncio.wait_for(slow, 5)
    assert server.streams == 1


@pytest.mark.parametrize("timeouts", [(0.1, 1, math.inf), (math.inf, 1, 0.1), (1, 0.1, 1, 0.1, 5)])
async def test_each_save_ends_at_its_own_deadline(
    server: ScriptedServer, client: SessionClient, timeouts: tuple[float, ...]
) -> None:
    held = Held()
    server.stream_script = [held.behave]

    async def save(timeout: float) -> float:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.save("a", "s", STATE, timeout=timeout)
        return time.monotonic() - start

    calls = {asyncio.create_task(save(timeout)): timeout for timeout in timeouts}
    ended, late = await asyncio.wait(calls, timeout=3)
    assert {calls[call] for call in late} == {timeout for timeout in timeouts if timeout > 3}
    for call in ended:
        assert calls[call] <= call.result() < calls[call] + 0.5
    for call in late:
        call.cancel()


async def test_a_later_save_with_less_time_ends_first(server: ScriptedServer, client: SessionClient) -> None:
    held = Held()
    server.stream_script = [held.behave]
    slow = asyncio.create_task(client.save("a", "slow", STATE, timeout=0.5))
    await held.wait_for(1)
    with pytest.raises(DeadlineExceeded):
        await client.save("a", "hasty", STATE, timeout=0.05)
    assert not slow.done()
    with pytest.raises(DeadlineExceeded):
        await slow


async def test_answers_that_nobody_waits_for_are_ignored(server: ScriptedServer, client: SessionClient) -> None:
    async def behave(frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        async for frame in frames:
            strange = messages.SaveResult(request_id="strange", response=saved())
            results = [messages.SaveResult(request_id=f.request.request_id, response=saved(5)) for f in frame.saves]
            yield messages.SaveSessionsResponse(results=[strange, *results, *results])

    server.stream_script = [behave]
    assert [s.revision.revision for s in await save_many(client, 5)] == [5] * 5
    await client.save("a", "s", STATE)
    assert server.streams == 1


async def test_one_request_id_twice_at_once(server: ScriptedServer, client: SessionClient) -> None:
    given = str(uuid.uuid4())
    await asyncio.wait_for(
        asyncio.gather(*(client.save("a", "s", STATE, request_id=given) for _ in range(2))), timeout=5
    )
    assert [request.request_id for request in server.requests] == [given, given]


async def test_what_was_in_flight_when_a_stream_is_lost_is_sent_again(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IN_FLIGHT", 5)  # so that none of it counts as in flight for ever
    lost: list[Any] = []

    async def behave(frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        async for frame in frames:
            for framed in frame.saves:
                if framed.request.session_name == "first":
                    yield messages.SaveSessionsResponse(
                        results=[messages.SaveResult(request_id=framed.request.request_id, response=saved())]
                    )
                else:
                    lost.append(framed.request)
            if len(lost) == 5:
                await context.abort(StatusCode.UNAVAILABLE, "the server has gone")

    server.stream_script = [behave, server.answer_frames]
    await client.save("a", "first", STATE)
    await save_many(client, 6)  # one more than may be in flight
    assert (server.streams, server.unary) == (2, 0)
    assert lost
    by_id = {request.request_id: request for request in server.requests}
    assert all(by_id[request.request_id] == request for request in lost)
    assert sorted(names(server)) == [f"s{n}" for n in range(6)]


async def test_a_server_that_ends_the_stream_gets_another(server: ScriptedServer, client: SessionClient) -> None:
    async def behave(frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        async for frame in frames:
            for framed in frame.saves:
                result = messages.SaveResult(request_id=framed.request.request_id, response=saved())
                yield messages.SaveSessionsResponse(results=[result])
            return

    server.stream_script = [behave]
    for _ in range(4):
        await client.save("a", "s", STATE)
    # A save that the end overtakes goes by itself.
    assert server.streams >= 2
    assert server.streams + server.unary >= 4


async def test_an_old_server_gets_calls(server: ScriptedServer, client: SessionClient) -> None:
    server.stream_script = [failing(StatusCode.UNIMPLEMENTED, info("METHOD_NOT_FOUND"))]
    await save_many(client, 5)
    for n in range(5):
        await client.save("a", f"later-{n}", STATE)
    assert (server.streams, server.unary) == (1, 10)


async def test_streams_that_fail_at_once_are_given_up_for_a_while(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.stream_script = [failing(StatusCode.INTERNAL)]
    for _ in range(10):
        await client.save("a", "s", STATE)
    assert (server.streams, server.unary) == (module.STRIKES, 10)
    # The while is over: one stream is tried. It fails, too; the next one works.
    monkeypatch.setattr(client._saver._stream, "_unary_until", 0.0)
    for _ in range(5):
        await client.save("a", "s", STATE)
    assert (server.streams, server.unary) == (module.STRIKES + 1, 15)
    server.stream_script = [server.answer_frames]
    monkeypatch.setattr(client._saver._stream, "_unary_until", 0.0)
    for _ in range(5):
        await client.save("a", "s", STATE)
    assert (server.streams, server.unary) == (module.STRIKES + 2, 15)


async def test_a_server_that_was_away_is_no_reason_to_give_streams_up(
    server: ScriptedServer, client: SessionClient
) -> None:
    await server.stop()
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await client.save("a", "s", STATE, timeout=0.2)
    await server.start()
    for _ in range(5):
        await client.save("a", "s", STATE)
    before = server.unary
    await client.save("a", "s", STATE)
    assert (server.unary, server.streams) == (before, 1)


async def test_a_stream_that_brings_no_answer_is_given_up(
    server: ScriptedServer, client: SessionClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_ANSWER_TIMEOUT", 0.1)
    held = Held()
    server.stream_script = [held.behave]
    await save_many(client, 3)
    await asyncio.wait_for(held.gone.wait(), 5)
    assert server.unary == 3
    assert {r.request_id for r in held.taken} == {r.request_id for r in server.requests}


async def test_a_lower_limit_of_the_server_makes_smaller_frames(server: ScriptedServer, client: SessionClient) -> None:
    limit = 3_000

    async def behave(frames: AsyncIterator[Any], context: Context) -> AsyncIterator[Message]:
        async for frame in frames:
            if frame.ByteSize() > limit:
                failure = Failure(StatusCode.RESOURCE_EXHAUSTED, "large", info("MESSAGE_TOO_LARGE", limit=str(limit)))
                context.set_trailing_metadata(failure.trailing_metadata())
                await context.abort(failure.code, failure.message)
            for framed in frame.saves:
                result = messages.SaveResult(request_id=framed.request.request_id, response=saved())
                yield messages.SaveSessionsResponse(results=[result])

    server.stream_script = [behave]
    await save_many(client, 10, KILOBYTE)
    streams, unary = server.streams, server.unary
    assert unary > 0
    await save_many(client, 10, KILOBYTE)
    assert server.unary == unary
    assert server.streams <= streams + 1


async def test_close_waits_for_answers_and_half_closes(server: ScriptedServer) -> None:
    client = SessionClient(server.target)
    server.script = [server.hang, saved()]
    calls = [asyncio.create_task(client.save("a", f"s{n}", STATE)) for n in range(3)]
    await asyncio.wait_for(server.arrived.wait(), 5)
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    with pytest.raises(ClientClosed):
        await client.save("a", "late", STATE)
    server.release.set()
    await asyncio.wait_for(closing, 5)
    assert all(isinstance(call.result(), SavedRevision) for call in calls)
    await asyncio.wait_for(server.half_closed.wait(), 5)
    assert len(server.requests) == 3
    await client.close()


async def test_close_does_not_wait_for_ever(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT", 0.1)
    client = SessionClient(server.target, retry=FAST)
    server.script = [server.hang]
    call = asyncio.create_task(client.save("a", "s", STATE))
    await asyncio.wait_for(server.arrived.wait(), 5)
    await asyncio.wait_for(client.close(), 3)
    with pytest.raises(ClientClosed):
        await call


async def test_a_client_of_calls_opens_no_stream(server: ScriptedServer) -> None:
    async with SessionClient(server.target, stream=False) as client:
        await save_many(client, 3)
    assert (server.streams, server.unary) == (0, 3)
