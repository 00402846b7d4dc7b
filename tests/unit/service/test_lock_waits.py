"""Turns at a session."""

import asyncio

import pytest
from session_service.postgres import lock_waits
from session_service.postgres.lock_waits import LockWaits
from session_service.sessions.errors import Contention

KEY = 7


async def test_nobody_gives_up_while_turns_go_on_and_the_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_waits, "PATIENCE", 0.2)
    waits, order = LockWaits(1), []

    async def work(number: int) -> None:
        async with waits.turn(KEY):
            order.append(number)
            await asyncio.sleep(0.02)

    # Together they take five times as long as anyone's patience.
    await asyncio.gather(*(work(number) for number in range(50)))
    assert order == [*range(50)]


async def test_all_give_up_where_nothing_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_waits, "PATIENCE", 0.05)
    waits = LockWaits(1)
    async with waits.turn(KEY):
        results = await asyncio.gather(*(waits.begin_turn(KEY) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [Contention] * 5
    assert waits.begin_turn_at_once(KEY)


async def test_a_cancelled_one_leaves_the_turn_to_the_next() -> None:
    waits = LockWaits(1)
    assert waits.begin_turn_at_once(KEY)
    first, second = (asyncio.ensure_future(waits.begin_turn(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    waits.end_turn(KEY)
    first.cancel()  # its turn has come, but it has not noticed
    await asyncio.gather(first, return_exceptions=True)
    await asyncio.wait_for(second, 10)
    waits.end_turn(KEY)
    assert waits.begin_turn_at_once(KEY)
