"""One after another: who waits, who gives up, and who comes next."""

import asyncio
import math
import time

import pytest
from agent_sessions.turn import Turn


async def started(turn: Turn, deadline: float = math.inf) -> "asyncio.Task[None]":
    """Return a task that waits for its turn by now."""
    task = asyncio.create_task(turn.wait(deadline))
    await asyncio.sleep(0)
    return task


async def test_turns_come_in_the_order_of_the_waits() -> None:
    turn = Turn()
    turn.taken = True
    waits = [await started(turn) for _ in range(3)]
    for place, wait in enumerate(waits):
        turn.pass_on()
        await asyncio.wait_for(wait, 5)
        assert [w.done() for w in waits] == [n <= place for n in range(3)]
        assert turn.taken
    turn.pass_on()
    assert not turn.taken


async def test_who_gives_up_is_passed_over() -> None:
    turn = Turn()
    turn.taken = True
    first, second = await started(turn), await started(turn)
    first.cancel()
    turn.pass_on()  # before `first` could do anything about it
    await asyncio.wait_for(second, 5)
    assert first.cancelled()
    third, fourth = await started(turn), await started(turn)
    third.cancel()
    await asyncio.wait({third})
    turn.pass_on()
    await asyncio.wait_for(fourth, 5)
    turn.pass_on()
    assert not turn.taken


async def test_a_turn_that_comes_as_its_wait_is_cancelled_is_passed_on() -> None:
    turn = Turn()
    turn.taken = True
    first, second = await started(turn), await started(turn)
    turn.pass_on()
    first.cancel()
    await asyncio.wait_for(second, 5)
    assert first.cancelled()
    third = await started(turn)
    turn.pass_on()
    third.cancel()
    await asyncio.wait({third})
    assert not turn.taken


async def test_a_deadline_ends_the_wait_and_not_the_turn() -> None:
    turn = Turn()
    turn.taken = True
    patient = await started(turn)
    with pytest.raises(TimeoutError):
        await turn.wait(time.monotonic() + 0.01)
    assert turn.taken
    assert not patient.done()
    turn.pass_on()
    await asyncio.wait_for(patient, 5)
