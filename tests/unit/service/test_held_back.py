"""For how long a transaction holds back what is newer, and when the log tells."""

from collections.abc import Iterator
from itertools import count

from session_service.events.held_back import LONG, HeldBack
from session_service.sessions.events import START, LogIdentity, LogPage
from structlog.testing import capture_logs

IDENTITY = LogIdentity(1, 1, (), b"")


def page(oldest_running: int, next_one: int) -> LogPage:
    running = frozenset({oldest_running} - {next_one})
    return LogPage(IDENTITY, (), START, True, False, False, START, oldest_running, next_one, running)


def test_nothing_is_held_back_when_nothing_runs() -> None:
    ticking: Iterator[int] = count()
    held = HeldBack(lambda: next(ticking))
    for _ in range(2 * int(LONG)):
        held.look(page(7, 7))
        assert held.age == 0


def test_each_transaction_that_stays_open_is_told_of_once() -> None:
    now = [0.0]
    held = HeldBack(lambda: now[-1])
    with capture_logs() as log:
        for oldest in (7, 9):
            held.look(page(oldest, oldest + 1))
            for seconds in (LONG - 1, 1, 1):
                now.append(now[-1] + seconds)
                held.look(page(oldest, oldest + 5))
            assert held.age == LONG + 1
            held.look(page(oldest + 1, oldest + 1))
    told = [(entry["log_level"], entry.get("transaction_id"), entry.get("seconds")) for entry in log]
    assert told == [("warning", 7, 10.0), ("info", None, None), ("warning", 9, 10.0), ("info", None, None)]


def test_a_stream_of_short_transactions_is_no_open_one() -> None:
    seconds = count()
    held = HeldBack(lambda: next(seconds))
    for number in range(20):
        held.look(page(7 + number, 9 + number))
        assert held.age == 0
