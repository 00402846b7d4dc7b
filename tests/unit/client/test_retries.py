"""Which failures are repeated, how long is waited, and what the caller's timeout bounds."""

import asyncio
import math
import time
from itertools import pairwise

import grpc
import pytest
from agent_sessions import (
    NO_RETRY,
    Aborted,
    DeadlineExceeded,
    ResourceExhausted,
    RetryPolicy,
    RevisionMismatch,
    Serialization,
    SessionClient,
    SessionServiceError,
    State,
    Unavailable,
)
from agent_sessions.retry import with_retries
from google.protobuf.message import Message
from grpc import StatusCode

from tests.unit.client.conftest import FAST
from tests.unit.client.scripted_server import Failure, ScriptedServer, info, retry_after, saved

STATE = State(messages=["hello"])
UNAVAILABLE = Failure(StatusCode.UNAVAILABLE, "draining", info("SHUTTING_DOWN"), retry_after(0.01))
CONTENTION = Failure(StatusCode.ABORTED, "contention", info("SERIALIZATION"))
FULL = Failure(StatusCode.RESOURCE_EXHAUSTED, "full", retry_after(0.01))


@pytest.mark.parametrize("failure", [UNAVAILABLE, CONTENTION, FULL, Failure(StatusCode.UNAVAILABLE)])
async def test_retryable_failures_are_repeated_with_the_same_request(
    server: ScriptedServer, client: SessionClient, failure: Failure
) -> None:
    server.script = [failure, failure, failure, saved(7)]
    assert (await client.save("a", "s", STATE)).revision.revision == 7
    assert len(server.requests) == 4
    assert server.requests[0].request_id
    assert all(request == server.requests[0] for request in server.requests)


@pytest.mark.parametrize("call", ["restore", "delete", "undelete"])
async def test_every_changing_call_keeps_its_request_id(
    server: ScriptedServer, client: SessionClient, call: str
) -> None:
    server.script = [UNAVAILABLE, Failure(StatusCode.INTERNAL)]
    with pytest.raises(SessionServiceError):
        await getattr(client, call)("a", "s")
    first, second = (request.request_id for request in server.requests)
    assert first == second != ""


@pytest.mark.parametrize(
    "failure",
    [
        Failure(StatusCode.ABORTED, "mismatch", info("REVISION_MISMATCH", current_revision="3")),
        Failure(StatusCode.ABORTED),
        Failure(StatusCode.RESOURCE_EXHAUSTED, "too large", info("MESSAGE_TOO_LARGE")),
        Failure(StatusCode.INTERNAL),
        Failure(StatusCode.UNKNOWN),
        Failure(StatusCode.DEADLINE_EXCEEDED),
        Failure(StatusCode.INVALID_ARGUMENT, "no", retry_after(0)),
        Failure(StatusCode.DATA_LOSS),
    ],
)
async def test_other_failures_are_not_repeated(server: ScriptedServer, client: SessionClient, failure: Failure) -> None:
    server.script = [failure]
    with pytest.raises(SessionServiceError) as caught:
        await client.save("a", "s", STATE)
    assert caught.value.code is failure.code
    assert len(server.requests) == 1


async def test_the_servers_retry_delay_is_waited_for(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [Failure(StatusCode.UNAVAILABLE, "wait", retry_after(0.3)), saved()]
    started = time.monotonic()
    await client.save("a", "s", STATE)
    assert 0.3 <= time.monotonic() - started < 5


async def test_a_retry_delay_longer_than_the_timeout_fails_at_once(
    server: ScriptedServer, client: SessionClient
) -> None:
    server.script = [Failure(StatusCode.UNAVAILABLE, "wait", retry_after(60))]
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await client.save("a", "s", STATE)
    assert time.monotonic() - started < 5
    assert (caught.value.retry_delay, len(server.requests)) == (60, 1)


async def test_the_timeout_bounds_all_attempts(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [Failure(StatusCode.UNAVAILABLE, "again")]
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await client.save("a", "s", STATE, timeout=1)
    assert 0.8 <= time.monotonic() - started < 10
    assert isinstance(caught.value.last_error, Unavailable)
    assert isinstance(caught.value, TimeoutError)
    assert "again" in str(caught.value)
    assert len(server.requests) > 2


async def test_each_attempt_gets_what_is_left(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [*[Failure(StatusCode.UNAVAILABLE, "wait", retry_after(0.2))] * 2, saved()]
    await client.save("a", "s", STATE, timeout=5)
    left = [seconds or 0 for seconds in server.time_remaining]
    assert 3 < left[0] < 5.1
    assert all(later <= earlier - 0.05 for earlier, later in pairwise(left))


async def test_a_hanging_server_is_a_deadline_exceeded(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [server.hang]
    with pytest.raises(DeadlineExceeded):
        await client.save("a", "s", STATE, timeout=0.2)
    with pytest.raises(DeadlineExceeded) as caught:
        await client.get_session("a", "s", timeout=0.2)
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    await asyncio.wait_for(server.cancelled.wait(), 5)


async def test_an_attempt_cut_off_by_the_deadline_tells_what_failed_before(
    server: ScriptedServer, client: SessionClient
) -> None:
    server.script = [UNAVAILABLE, server.hang]
    with pytest.raises(DeadlineExceeded) as caught:
        await client.save("a", "s", STATE, timeout=0.5)
    assert isinstance(caught.value.last_error, Unavailable)
    assert len(server.requests) == 2


async def test_the_default_timeout_holds(server: ScriptedServer) -> None:
    server.script = [server.hang]
    async with SessionClient(server.target, timeout=0.2) as client:
        with pytest.raises(DeadlineExceeded):
            await client.save("a", "s", STATE)


async def test_infinity_means_no_deadline(server: ScriptedServer, client: SessionClient) -> None:
    await client.save("a", "s", STATE, timeout=math.inf)
    assert server.time_remaining == [None]


async def test_a_dead_server_is_waited_for(server: ScriptedServer, client: SessionClient) -> None:
    await server.stop()
    with pytest.raises(DeadlineExceeded) as caught:
        await client.save("a", "s", STATE, timeout=0.5)
    assert isinstance(caught.value.last_error, Unavailable)


async def test_a_server_that_starts_late_is_found(server: ScriptedServer, client: SessionClient) -> None:
    await server.stop()
    call = asyncio.create_task(client.save("a", "s", STATE))
    done, _ = await asyncio.wait([call], timeout=0.5)
    assert not done
    await server.start()
    assert (await call).revision.revision == 1


async def test_a_restarted_server_is_found_again(server: ScriptedServer, client: SessionClient) -> None:
    for _ in range(3):
        await client.save("a", "s", STATE)
        await server.stop()
        await server.start()
    await client.save("a", "s", STATE)
    assert len(server.requests) == 4


async def test_a_connection_lost_during_the_call_is_retried(server: ScriptedServer, client: SessionClient) -> None:
    server.script = [server.hang, saved()]
    call = asyncio.create_task(client.save("a", "s", STATE))
    await asyncio.wait_for(server.arrived.wait(), 5)
    await server.stop()
    await server.start()
    await call
    first, second = server.requests
    assert first == second


async def test_no_retry(server: ScriptedServer) -> None:
    server.script = [CONTENTION]
    async with SessionClient(server.target, retry=NO_RETRY) as client:
        with pytest.raises(Serialization):
            await client.save("a", "s", STATE)
    assert len(server.requests) == 1


async def test_max_attempts(server: ScriptedServer) -> None:
    server.script = [FULL]
    policy = RetryPolicy(initial_backoff=0, max_attempts=3)
    async with SessionClient(server.target, retry=policy) as client:
        with pytest.raises(ResourceExhausted):
            await client.save("a", "s", STATE)
    assert len(server.requests) == 3


async def test_another_failure_after_a_retry_is_what_is_raised(server: ScriptedServer, client: SessionClient) -> None:
    mismatch = Failure(StatusCode.ABORTED, "no", info("REVISION_MISMATCH", current_revision="3"))
    server.script = [UNAVAILABLE, mismatch]
    with pytest.raises(RevisionMismatch):
        await client.save("a", "s", STATE)


def test_backoff_grows_with_full_jitter_up_to_its_limit() -> None:
    policy = RetryPolicy(initial_backoff=0.1, multiplier=2, max_backoff=1)
    for attempts, ceiling in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (10_000, 1.0)):
        waits = [policy.backoff(attempts) for _ in range(300)]
        assert 0 <= min(waits) < 0.2 * ceiling
        assert 0.8 * ceiling < max(waits) <= ceiling


@pytest.mark.parametrize(
    "wrong", [{"initial_backoff": -1}, {"multiplier": 0.5}, {"max_backoff": -1}, {"max_attempts": 0}]
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]  # numbers of both kinds


async def test_only_this_librarys_errors_are_repeated() -> None:
    calls = 0

    async def attempt(left: float) -> Message:
        nonlocal calls
        calls += 1
        raise OSError("not ours")

    with pytest.raises(OSError, match="not ours"):
        await with_retries(attempt, timeout=1, policy=FAST)
    assert calls == 1


async def test_an_aborted_without_reason_is_the_callers_to_handle(
    server: ScriptedServer, client: SessionClient
) -> None:
    server.script = [Failure(StatusCode.ABORTED, "no", info("OTHER"))]
    with pytest.raises(Aborted):
        await client.save("a", "s", STATE)
    assert len(server.requests) == 1
