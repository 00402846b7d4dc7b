"""What runs beside the server ends with it."""

import asyncio

from session_service.health import running


async def test_work_that_loses_a_cancellation_is_ended_all_the_same() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    async with asyncio.timeout(30), running(work()):
        await asyncio.sleep(0)
    assert lost == 2


async def test_work_that_failed_does_not_fail_the_stop() -> None:
    async def work() -> None:
        raise RuntimeError

    async with running(work()):
        await asyncio.sleep(0)
