"""What a watch gives, and when it ends: with a log in memory."""

import asyncio
import base64
from uuid import UUID

import pytest
from session_service.events import subscription
from session_service.events.watches import WatchLimits
from session_service.sessions.errors import (
    CursorExpired,
    DatabaseUnavailable,
    InvalidResumeToken,
    ShuttingDown,
    SlowWatcher,
    TooManyWatches,
)
from session_service.sessions.events import Event, LogIdentity, Position
from session_service.sessions.model import Tenant

from tests.unit.service.watching.fake_log import SECRET, SYSTEM, FakeLog
from tests.unit.service.watching.watcher import Room, Watcher, hint, room, wanting, watching


def ids(events: list[Event]) -> list[UUID]:
    return [event.event_id for event in events]


async def test_what_comes_after_created_is_given_and_nothing_from_before() -> None:
    log = FakeLog()
    log.add(3)
    async with room(log) as place:
        watcher = await watching(place)
        after = log.add(2)
        hint(place)
        assert ids(await watcher.got(2)) == ids(after)
        await watcher.stop()


async def test_from_now_on_means_now_even_if_an_older_transaction_is_running() -> None:
    log = FakeLog()
    async with room(log) as place:
        older = log.begin()
        log.add(2)  # committed before the watch, but not readable yet
        watcher = await watching(place)
        late = log.write(older)
        log.commit(older)
        after = log.add()
        hint(place)
        assert ids(await watcher.got(2)) == ids([late, *after])
        await watcher.stop()


async def test_an_older_transaction_holds_back_what_is_newer() -> None:
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place)
        older = log.begin()
        newer = log.add(3)
        late = log.write(older)
        reads = log.reads
        hint(place)
        # It looks again by itself, though nobody says anything.
        await log.until_read(reads + 3)
        assert not watcher.events
        log.commit(older)
        assert ids(await watcher.got(4)) == ids([late, *newer])
        await watcher.stop()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (wanting(), [1, 3, 5]),
        (wanting((1, 2, 3)), [0, 1, 2, 3, 4, 5]),
        (wanting((2,), "a"), [1, 3]),
        (wanting((2,), "a", "s"), [1]),
        (wanting((4,)), []),
        (wanting((2,), tenant=Tenant(2, "other", b"")), []),
    ],
)
async def test_filters(wanted: object, expected: list[int]) -> None:
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place, wanted)  # type: ignore[arg-type]
        witness = await watching(place, wanting((1, 2, 3)))
        added = [
            *log.add(kind=1),
            *log.add(),
            *log.add(kind=3),
            *log.add(session_name="t"),
            *log.add(kind=1, agent_id="b"),
            *log.add(agent_id="b"),
        ]
        hint(place)
        await witness.got(len(added))
        assert ids(await watcher.got(len(expected))) == ids([added[index] for index in expected])
        await watcher.stop()
        await witness.stop()


async def test_a_token_goes_on_after_its_message() -> None:
    log = FakeLog(page=2)
    async with room(log) as place:
        watcher = await watching(place)
        log.add(2)
        hint(place)
        await watcher.got(2)
        await watcher.stop()
        missed = log.add(5)
        hint(place)
        again = await watching(place, token=watcher.token)
        later = log.add(1)
        hint(place)
        assert ids(await again.got(6)) == ids([*missed, *later])
        await again.stop()


async def test_a_bookmark_comes_in_silence_and_carries_a_token_that_goes_on() -> None:
    log = FakeLog()
    async with room(log, WatchLimits(bookmark_seconds=0.02), poll=0.01) as place:
        watcher = await watching(place, wanting((4,)))
        first = watcher.token
        log.add(5)
        await watcher.until(lambda it: it.bookmarks > 2 and it.token != first)
        assert not watcher.events
        await watcher.stop()
        log.horizon = log.committed[-1].position  # all that the bookmark had gone past is trimmed
        again = await watching(place, wanting((4,)), watcher.token)
        assert again.error is None
        await again.stop()


async def test_a_slow_reader_gets_everything_and_does_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "QUEUE", 4)
    log = FakeLog(page=3)
    async with room(log) as place:
        gate = asyncio.Event()
        slow, quick = await watching(place), await watching(place)

        async def wait() -> None:
            await gate.wait()

        slow.pause = wait
        added: list[Event] = []
        for _ in range(10):
            added += log.add(5)
            hint(place)
            await quick.got(len(added))
        assert len(slow.events) == 1
        (watched,) = [one for one in place.hub.subscriptions() if one.overflowed]
        assert len(watched.queue) <= 4
        gate.set()
        assert ids(await slow.got(50)) == ids(added)
        later = log.add(3)
        hint(place)
        assert ids(await slow.got(53)) == ids([*added, *later])
        await slow.stop()
        await quick.stop()


async def test_one_who_takes_nothing_is_ended() -> None:
    log = FakeLog()
    async with room(log, WatchLimits(send_seconds=0.05)) as place:
        watcher = await watching(place)
        never = asyncio.Event()

        async def wait() -> None:
            await never.wait()

        watcher.pause = wait
        log.add()
        hint(place)
        error = await watcher.ended()
        assert isinstance(error, SlowWatcher)
        assert "0.05 s" in error.message
        assert place.hub.count == 0


async def test_one_who_falls_further_and_further_behind_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "QUEUE", 2)
    monkeypatch.setattr(subscription, "PACE", 0.05)
    log = FakeLog(page=3)
    async with room(log) as place:
        watcher = await watching(place)

        async def write_on() -> None:
            log.add(10)
            hint(place)
            await asyncio.sleep(0.01)

        watcher.pause = write_on  # ten more for each that is taken
        log.add()
        hint(place)
        assert isinstance(await watcher.ended(), SlowWatcher)


async def test_tokens_that_are_not_ours() -> None:
    log = FakeLog()
    async with room(log) as place:
        token = (await watching(place)).token
        for wrong in (b"x", token[:-1], token + b"x", bytes([token[0] ^ 1]) + token[1:], token[:-1] + b"\0"):
            error = (await watching(place, token=wrong)).error
            assert isinstance(error, InvalidResumeToken)
            assert f"{len(wrong)} bytes" in error.message


async def test_a_token_from_before_the_kept_log_is_expired_and_the_oldest_is_told() -> None:
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place)
        await watcher.stop()
        log.add(3)
        log.horizon = log.committed[1].position
        log.committed[:2] = []
        error = (await watching(place, token=watcher.token)).error
        assert isinstance(error, CursorExpired)
        oldest = base64.b64decode(error.metadata["oldest_resume_token"])
        again = await watching(place, token=oldest)
        assert ids(await again.got(1)) == ids(log.committed)
        await again.stop()


async def test_a_replay_that_the_trimming_overtakes_is_expired() -> None:
    log = FakeLog(page=1)
    async with room(log) as place:
        first = await watching(place)
        await first.stop()
        log.add(5)
        watcher = Watcher(place.watches, wanting(), first.token)

        async def trim() -> None:
            log.horizon = log.committed[3].position

        watcher.pause = trim
        assert isinstance(await watcher.ended(), CursorExpired)
        assert len(watcher.events) <= 1


async def test_a_token_of_another_cluster_is_expired() -> None:
    log = FakeLog()
    async with room(log) as place:
        token = (await watching(place)).token
    other = FakeLog()
    other.identity = LogIdentity(SYSTEM + 1, 1, (), SECRET)
    async with room(other) as place:
        assert isinstance((await watching(place, token=token)).error, CursorExpired)


async def test_a_token_from_the_future_of_an_old_copy_is_expired() -> None:
    log = FakeLog()
    log.add(5)
    async with room(log) as place:
        token = (await watching(place)).token
    copy = FakeLog()
    copy.add(3)
    async with room(copy) as place:
        assert isinstance((await watching(place, token=token)).error, CursorExpired)


async def test_a_token_of_an_earlier_timeline_goes_back_to_where_the_next_one_began() -> None:
    log = FakeLog()
    before = log.add(4)
    async with room(log) as place:
        token = (await watching(place)).token  # after all four
    promoted = FakeLog()
    promoted.committed = [*before]
    promoted.go_on_after(before[-1].position)
    # The failovers were noted when the first two, then the first three, had been read everywhere.
    promoted.identity = LogIdentity(SYSTEM, 3, ((2, before[1].position), (3, before[2].position)), SECRET)
    async with room(promoted) as place:
        watcher = await watching(place, token=token)
        assert watcher.error is None
        later = promoted.add()
        hint(place)
        assert ids(await watcher.got(3)) == ids([*before[2:], *later])
        await watcher.stop()


async def test_a_token_of_a_timeline_that_this_server_has_not_seen_is_for_later() -> None:
    later = FakeLog()
    later.identity = LogIdentity(SYSTEM, 2, ((2, Position(5, 5)),), SECRET)
    async with room(later) as place:
        token = (await watching(place)).token
    async with room(FakeLog()) as place:
        assert isinstance((await watching(place, token=token)).error, DatabaseUnavailable)


async def test_another_log_ends_all_watches() -> None:
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place)
        log.identity = LogIdentity(SYSTEM, 2, ((2, Position(5, 5)),), SECRET)
        hint(place)
        assert isinstance(await watcher.ended(), DatabaseUnavailable)
        again = await watching(place, token=watcher.token)
        assert again.error is None
        await again.stop()


async def test_an_old_copy_in_its_place_ends_all_watches() -> None:
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place)
        log.is_older = True
        hint(place)
        assert isinstance(await watcher.ended(), DatabaseUnavailable)


async def test_no_bookmark_comes_while_the_log_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_service.events.feed.RETRY_PAUSE", 0.01)
    log = FakeLog()
    async with room(log, WatchLimits(bookmark_seconds=0.02), poll=0.01) as place:
        watcher = await watching(place)
        await watcher.until(lambda it: it.bookmarks > 0)
        log.is_down = True
        await log.until_asked(5)
        before = watcher.bookmarks
        await log.until_asked(20)
        assert watcher.bookmarks <= before + 1
        log.is_down = False
        await watcher.until(lambda it: it.bookmarks > before + 2)
        await watcher.stop()


async def test_a_database_that_is_away_for_a_while_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("session_service.events.feed.RETRY_PAUSE", 0.01)
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place)
        log.is_down = True
        added = log.add(2)
        hint(place)
        await asyncio.sleep(0)
        error = (await watching(place)).error
        assert isinstance(error, DatabaseUnavailable)
        log.is_down = False
        assert ids(await watcher.got(2)) == ids(added)
        await watcher.stop()


async def test_no_more_watches_than_allowed() -> None:
    async with room(FakeLog(), WatchLimits(watches=1)) as place:
        first = await watching(place)
        error = (await watching(place)).error
        assert isinstance(error, TooManyWatches)
        assert error.metadata == {"limit": "1"}
        await first.stop()
        again = await watching(place)
        assert again.error is None
        await again.stop()


async def test_close_ends_all_and_lets_nobody_in() -> None:
    async with room(FakeLog()) as place:
        watcher = await watching(place)
        place.watches.close()
        assert isinstance(await watcher.ended(), ShuttingDown)
        assert isinstance((await watching(place)).error, ShuttingDown)


async def test_types_are_read_only_while_somebody_wants_them() -> None:
    async with room(FakeLog()) as place:
        assert place.hub.wanted_types() == frozenset()
        first, second = await watching(place, wanting((1, 2))), await watching(place, wanting((2, 3)))
        await first.until(lambda _: place.hub.wanted_types() == {1, 2, 3})
        await first.stop()
        assert place.hub.wanted_types() == {2, 3}
        await second.stop()
        assert place.hub.wanted_types() == frozenset()


async def test_while_nobody_watches_what_is_written_makes_nobody_look() -> None:
    log = FakeLog()
    async with room(log) as place:
        watcher = await watching(place)
        log.add()
        hint(place)
        await watcher.got(1)
        await watcher.stop()
        await _hinted(place)  # the feed was waiting for one when the watcher left
        asked = log.asked
        for _ in range(3):
            log.add()
            await _hinted(place)
        assert log.asked == asked
        # A watch that begins is given what comes after it, and nothing that the feed has still to read.
        watcher = await watching(place)
        after = log.add()
        hint(place)
        assert ids(await watcher.got(1)) == ids(after)
        assert log.asked > asked
        await watcher.stop()


async def _hinted(place: Room) -> None:
    """Say that the log has grown, and let the feed look if it will."""
    hint(place)
    for _ in range(20):
        await asyncio.sleep(0)
