"""Work of which another thread does a part."""

import threading
import time
from collections.abc import Iterator

import pytest
from session_service.postgres import shared_work
from session_service.postgres.shared_work import share

PATIENCE = 20.0
"""Seconds."""


@pytest.fixture
def helpers(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """One helper, however few processors there are; afterwards it is free again."""
    free = threading.Semaphore(1)
    monkeypatch.setattr(shared_work, "_free", free)
    yield free
    assert free.acquire(blocking=False)
    assert "shared-work" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.usefixtures("helpers")
def test_results_come_in_the_order_of_the_batches(count: int) -> None:
    assert share(lambda batch: batch * batch, range(count)) == [number * number for number in range(count)]


@pytest.mark.usefixtures("helpers")
def test_two_threads_work_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=PATIENCE)

    def work(_: int) -> str:
        both.wait()
        return threading.current_thread().name

    assert sorted(share(work, range(2))) == sorted((threading.current_thread().name, "shared-work"))


def test_who_finds_no_helper_does_everything_alone(helpers: threading.Semaphore) -> None:
    with helpers:
        assert set(share(lambda _: threading.current_thread(), range(9))) == {threading.current_thread()}


@pytest.mark.usefixtures("helpers")
def test_a_process_that_gets_no_more_threads_does_everything_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert share(lambda batch: batch + 1, range(5)) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("helpers")
def test_an_error_of_the_helper_is_raised_and_ends_the_work() -> None:
    asked = threading.current_thread()
    both = threading.Barrier(2, timeout=PATIENCE)
    begun: list[int] = []

    def work(batch: int) -> None:
        begun.append(batch)
        both.wait()
        if threading.current_thread() is not asked:
            raise ValueError(batch)
        for helper in (thread for thread in threading.enumerate() if thread.name == "shared-work"):
            helper.join(PATIENCE)

    with pytest.raises(ValueError, match=r"^[01]$"):
        share(work, range(1000))
    assert sorted(begun) == [0, 1]


@pytest.mark.usefixtures("helpers")
def test_an_error_of_the_one_who_asked_ends_the_work_of_the_helper() -> None:
    asked = threading.current_thread()
    both = threading.Barrier(2, timeout=PATIENCE)
    begun: list[int] = []

    def work(batch: int) -> None:
        begun.append(batch)
        if len(begun) <= 2:  # one for each
            both.wait()
        if threading.current_thread() is asked:
            raise ValueError(batch)
        time.sleep(0)  # lets the other one go on

    with pytest.raises(ValueError, match=r"^[01]$"):
        share(work, range(100_000))
    assert len(begun) < 100_000
