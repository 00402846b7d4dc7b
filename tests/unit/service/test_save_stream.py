"""What a stream of saves takes in hand, with saves that cost nothing."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from agent_sessions.v1.session_service_pb2 import FramedSave, SaveSessionRequest, SaveSessionsRequest
from session_service.api import save_stream
from session_service.api.outbox import MAX_FRAME_BYTES
from session_service.api.save_stream import MAX_IN_HAND, SaveStream
from session_service.sessions.errors import InvalidField
from session_service.sessions.model import NO_ENTRIES, Delta, Revision, Save, Saved, Session, Tenant

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def saved(labels: dict[str, str] | None = None) -> Saved:
    session = Session(1, "a", "s", None, "", 1, 0, 0, labels or NO_ENTRIES, NOW, NOW, None, None)
    return Saved(session, Revision(1, "e", 0, "", 0, 0, NOW, NO_ENTRIES), replayed=False)


class Store:
    """Answers at once, or never."""

    def __init__(self, *, answers: bool = True, result: Saved | None = None) -> None:
        self.begun = 0
        self._answers = answers
        self._result = result or saved()

    def save_many(self, saves: Sequence[Save]) -> list[Awaitable[Saved]]:
        self.begun += len(saves)
        futures: list[Awaitable[Saved]] = []
        for _ in saves:
            future: asyncio.Future[Saved] = asyncio.get_running_loop().create_future()
            if self._answers:
                future.set_result(self._result)
            futures.append(future)
        return futures


def parsed(request: SaveSessionRequest) -> Save:
    if not request.agent_id:
        raise InvalidField("agent_id", "is required")
    return Save(Tenant(1, "t", b"s"), request.agent_id, "s", Delta(0, "", None, (), {}, (), b""), "actor")


def frame(count: int, request_id: bool = True, timeout: float = 0) -> SaveSessionsRequest:
    made = SaveSessionsRequest()
    for _ in range(count):
        one: FramedSave = made.saves.add()
        one.request.request_id = str(uuid.uuid4()) if request_id else ""
        one.request.agent_id = "a"
        if timeout:
            one.timeout.FromNanoseconds(int(timeout * 1e9))
    return made


async def of(*frames: SaveSessionsRequest) -> AsyncIterator[SaveSessionsRequest]:
    for one in frames:
        yield one


def stream(store: Store) -> SaveStream:
    return SaveStream(parsed, store.save_many, asyncio.Event(), lambda _: None)


async def settle() -> None:
    for _ in range(20_000):
        await asyncio.sleep(0)


async def test_all_is_answered_in_frames_of_bounded_size() -> None:
    store = Store(result=saved({f"label {n}": "x" * 1000 for n in range(60)}))
    answers = [answer async for answer in stream(store).answers(of(frame(100), frame(1), frame(200)))]
    assert sum(len(answer.results) for answer in answers) == 301
    largest = max(result.ByteSize() for answer in answers for result in answer.results)
    assert max(answer.ByteSize() for answer in answers) <= MAX_FRAME_BYTES + 2 * largest


async def test_of_a_request_id_that_is_none_only_the_beginning_is_sent_back() -> None:
    sent = SaveSessionsRequest(saves=[FramedSave(request=SaveSessionRequest(request_id="x" * 4_000_000))])

    def refuse(request: SaveSessionRequest) -> Save:
        raise InvalidField("request_id", "must be a UUID", request.request_id)

    refusing = SaveStream(refuse, Store().save_many, asyncio.Event(), lambda _: None)
    (answer,) = [answer async for answer in refusing.answers(of(sent))]
    assert [result.request_id for result in answer.results] == ["x" * 255]
    assert answer.ByteSize() < 10_000


@pytest.mark.parametrize("good", [True, False])
async def test_a_caller_that_reads_no_answers_is_not_taken_more_from(good: bool) -> None:
    store, read = Store(), 0

    async def frames() -> AsyncIterator[SaveSessionsRequest]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield frame(100, request_id=good)

    answers: Any = stream(store).answers(frames())
    await anext(answers)  # and then no more
    await settle()
    assert read * 100 <= 2 * MAX_IN_HAND + 200
    await answers.aclose()


async def test_other_tasks_have_their_turn_between_the_groups_of_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save_stream, "LONGEST_SPELL", 0.0)
    store, seen = Store(answers=False), []

    async def neighbour() -> None:
        while store.begun < 100:
            seen.append(store.begun)
            await asyncio.sleep(0)

    answers = stream(store).answers(of(frame(100)))
    first = asyncio.ensure_future(anext(answers))
    await neighbour()
    assert len(seen) > 100 / 16
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_timeout_counts_from_the_arrival_of_the_frame() -> None:
    # The second frame's save finds no room before its time is over: it is not begun at all.
    store = Store(answers=False)
    answers = stream(store).answers(of(frame(MAX_IN_HAND - 1, timeout=0.3), frame(5, timeout=0.05)))
    late = [result.error.reason async for answer in answers for result in answer.results]
    assert len(late) == MAX_IN_HAND + 4
    assert set(late) == {"DEADLINE_EXCEEDED"}
    assert store.begun == MAX_IN_HAND


async def test_what_is_wrong_with_one_is_told_to_one() -> None:
    store = Store()
    mixed = frame(2)
    mixed.saves.add()
    mixed.saves.add(request=SaveSessionRequest(request_id="x")).timeout.seconds = -1
    answers = [result async for answer in stream(store).answers(of(mixed)) for result in answer.results]
    assert sorted(result.WhichOneof("outcome") for result in answers) == ["error", "error", "response", "response"]
    assert {result.error.reason for result in answers if result.HasField("error")} == {"INVALID_FIELD"}
