"""The budget that uploads and downloads share."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from session_service.api import transfers
from session_service.api.transfers import TransferLimits, Transfers
from session_service.sessions.errors import TooManyTransfers, TransferStalled


def budget(shares: int, **limits: Any) -> Transfers:
    one = TransferLimits().share
    return Transfers(TransferLimits()._replace(memory_bytes=shares * one)._replace(**limits))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "PATIENCE", 0.05)


async def test_there_are_so_many_shares() -> None:
    all_of_them = budget(3)
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(all_of_them.begin())
        with pytest.raises(TooManyTransfers, match=str(3 * TransferLimits().share)) as refused:
            await stack.enter_async_context(all_of_them.begin())
        assert refused.value.retry_after > 0
    for _ in range(2):  # and they come back
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(all_of_them.begin())


async def test_a_budget_below_one_share_serves_one_at_a_time() -> None:
    small = Transfers(TransferLimits(memory_bytes=1000))
    async with small.begin():
        with pytest.raises(TooManyTransfers):
            async with small.begin():
                pass
    async with small.begin():
        pass


async def test_shares_are_given_in_order_and_one_that_was_given_up_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfers, "PATIENCE", 60)
    one = budget(1)
    order: list[int] = []

    async def take(number: int) -> None:
        async with one.begin():
            order.append(number)
            await asyncio.sleep(0)

    async with one.begin():
        waiting = [asyncio.create_task(take(number)) for number in range(5)]
        await asyncio.sleep(0)
        waiting[2].cancel()
        await asyncio.sleep(0)
        late = asyncio.create_task(take(5))
        await asyncio.sleep(0)
        assert order == []
    waiting[0].cancel()  # in the very moment in which it got its share
    await asyncio.wait([*waiting, late])
    assert order == [1, 3, 4, 5]
    async with one.begin():
        pass


async def test_a_pause_and_the_whole_have_their_limits() -> None:
    never = asyncio.Event()
    with pytest.raises(TransferStalled, match=r"paused for 0\.01 s"):
        await budget(1, idle_seconds=0.01).caller(never.wait())
    bounded = budget(1, seconds=0.01)
    with pytest.raises(TransferStalled, match=r"took more than 0\.01 s"):
        async with bounded.begin():
            await never.wait()
    async with bounded.begin():
        pass


async def test_the_timeouts_of_others_are_not_taken_for_these() -> None:
    both = budget(1)

    async def time_out() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        async with both.begin():
            await both.caller(time_out())
