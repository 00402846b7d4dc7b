"""Group commit, seen from outside: what is in flight together is committed together."""

import asyncio
import urllib.request
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from agent_sessions import SessionClient
from agent_sessions.v1 import session_pb2, session_service_pb2
from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.figures import Tell
from tests.fixtures.servers import ServerFactory, ServerProcess

IN_FLIGHT = 64
ROUNDS = 8
"""Until one shows it: where other tests keep the processors busy, saves come in dribs and drabs."""
SAVES_OF_EACH = 30


async def flushes(server: ServerProcess) -> list[tuple[float, float]]:
    """Upper bounds of the batch-size histogram's buckets, and flushes up to each."""
    text = await asyncio.to_thread(_scrape, f"http://{server.ops_address}/metrics")
    return [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "session_service_flush_saves_bucket"
    ]


def _scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 – of a server that the test started
        return str(answer.read().decode())


def median_bucket(before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]) -> float:
    """The lower bound of the bucket that holds the median of the flushes between two scrapes."""
    counts = [(bound, later - earlier) for (bound, later), (_, earlier) in zip(after, before, strict=True)]
    half = counts[-1][1] / 2
    assert half > 0
    below = [bound for bound, count in counts if count < half]
    return below[-1] if below else 0


async def test_at_64_in_flight_at_least_16_are_committed_together(
    server: ServerFactory, database_url: str, agent_id: str, tell: Tell
) -> None:
    process = await asyncio.to_thread(server, database_url=database_url)
    async with SessionClient(process.address) as client:
        sessions = [client.session(agent_id, f"s{n}") for n in range(IN_FLIGHT)]
        await asyncio.gather(*(session.append(["first"]) for session in sessions))

        async def save(session: Any) -> None:
            for n in range(SAVES_OF_EACH):
                await session.append([f"message {n}"])

        for _ in range(ROUNDS):
            before = await flushes(process)
            await asyncio.gather(*map(save, sessions))
            # Its bucket holds flushes of more saves than this.
            median = median_bucket(before, await flushes(process))
            if median >= 16:
                break
    tell(f"{IN_FLIGHT} in flight: the median flush commits more than {median:g} saves")
    assert median >= 16


@pytest.fixture
async def stream(shared_server: ServerProcess) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(shared_server.address) as channel:
        yield channel.stream_stream(
            "/agent_sessions.v1.SessionService/SaveSessions",
            session_service_pb2.SaveSessionsRequest.SerializeToString,
            session_service_pb2.SaveSessionsResponse.FromString,
        )()


async def test_saves_of_one_session_in_one_frame_are_carried_out_in_their_order(stream: Any, agent_id: str) -> None:
    frame = session_service_pb2.SaveSessionsRequest()
    sent = [str(uuid.uuid4()) for _ in range(40)]
    for n, request_id in enumerate(sent):
        request = frame.saves.add().request
        request.agent_id, request.session_name, request.request_id = agent_id, f"s{n % 2}", request_id
        messages = [session_pb2.Message(text=f"{place}") for place in range(n // 2 + 1)]
        request.snapshot.message_history.extend(messages)
    await stream.write(frame)
    await stream.done_writing()
    answered = {result.request_id: result async for answer in stream for result in answer.results}
    assert [answered[request_id].response.revision.revision for request_id in sent] == [n // 2 + 1 for n in range(40)]


async def test_frames_of_any_size_are_answered_whole(stream: Any, agent_id: str) -> None:
    sent: set[str] = set()
    answered: list[str] = []
    for size in (1, 7, 8, 9, 200):
        frame = session_service_pb2.SaveSessionsRequest()
        for n in range(size):
            request = frame.saves.add().request
            request.agent_id, request.session_name, request.request_id = agent_id, f"{size}-{n}", str(uuid.uuid4())
            request.snapshot.message_history.add(text="x")
            sent.add(request.request_id)
        await stream.write(frame)
    await stream.done_writing()
    async for answer in stream:
        assert all(result.HasField("response") for result in answer.results)
        answered += [result.request_id for result in answer.results]
    assert len(answered) == len(sent)
    assert set(answered) == sent
