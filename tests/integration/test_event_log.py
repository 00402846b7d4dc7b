"""What is read of the log, in which order, and which log it is."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import asyncpg
import pytest
from session_service.postgres import event_hints
from session_service.postgres.event_hints import CHANNEL, Listener, Notifier
from session_service.postgres.event_log import PostgresEventLog
from session_service.postgres.pool import Database
from session_service.sessions import placement
from session_service.sessions.events import START, Event, EventFilter, Position
from session_service.sessions.model import Tenant

from tests.fixtures.postgres import ROLE

ALL = EventFilter(frozenset({1, 2, 3, 4}))
ADD = """
    INSERT INTO session_events (
        tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, agent_id, session_name, actor
    ) VALUES ($1, 1, 7, now(), $2, $3, gen_random_uuid(), gen_random_uuid(), $4, $5, 'someone')
    RETURNING event_id
"""
HERE = "SELECT array[system_identifier, timeline]::text[] FROM log_state"
TENANT = Tenant(1, "default", b"")


async def add(
    connection: asyncpg.Connection, kind: int = 2, agent_id: str = "a", session_name: str = "s", tenant: int = 1
) -> object:
    bucket = placement.bucket_of(TENANT, agent_id)
    return await connection.fetchval(ADD, tenant, bucket, kind, agent_id, session_name)


def ids(events: Iterable[Event]) -> list[object]:
    return [event.event_id for event in events]


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await Database.connect(database_url, role=ROLE, pool_size=2)
    yield database
    await database.close()


@pytest.fixture
async def log(database: Database) -> AsyncIterator[PostgresEventLog]:
    log = PostgresEventLog(database, page=3)
    yield log
    await log.close()


async def test_pages_follow_each_other_in_the_order_of_the_log(
    log: PostgresEventLog, owner: asyncpg.Connection
) -> None:
    added = [await add(owner) for _ in range(7)]
    found: list[object] = []
    after, pages = START, 0
    while True:
        page = await log.read(after, ALL)
        found += ids(page.events)
        assert page.end == page.events[-1].position, "never further than an event is"
        assert page.has_grown is bool(page.events)
        after, pages = page.end, pages + 1
        if page.is_last:
            break
    assert (found, pages) == (added, 3)
    assert page.end.xid < page.xmin
    event = (await log.read(START, ALL)).events[0]
    assert (event.type, event.agent_id, event.session_name, event.revision) == (2, "a", "s", 7)
    assert (event.tenant_id, event.client_id, event.actor) == (1, "", "someone")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ALL, [0, 1, 2, 3, 4]),
        (EventFilter(frozenset()), []),
        (EventFilter(frozenset({1})), [0]),
        (EventFilter(frozenset({2}), TENANT), [1, 2, 3]),
        (EventFilter(frozenset({2}), TENANT, "a"), [1, 2]),
        (EventFilter(frozenset({2}), TENANT, "a", "t"), [2]),
        (EventFilter(frozenset({2}), Tenant(2, "other", b"")), [4]),
    ],
)
async def test_filters(database: Database, owner: asyncpg.Connection, wanted: EventFilter, expected: list[int]) -> None:
    added = [
        await add(owner, kind=1),
        await add(owner),
        await add(owner, session_name="t"),
        await add(owner, agent_id="b"),
        await add(owner, tenant=2),
    ]
    log = PostgresEventLog(database, page=2)
    found: list[object] = []
    after, is_last = START, False
    while not is_last:
        page = await log.read(after, wanted)
        found += ids(page.events)
        after, is_last = page.end, page.is_last
    assert found == [added[index] for index in expected]
    assert after == (await log.tail()).end, "what is not wanted is gone past, too"
    await log.close()


async def test_up_to(log: PostgresEventLog, owner: asyncpg.Connection) -> None:
    added = [await add(owner) for _ in range(2)]
    end = (await log.read(START, ALL)).end
    await add(owner)
    page = await log.read(START, ALL, end)
    assert ids(page.events) == added
    assert (page.end, page.is_last) == (end, True)


async def test_a_running_transaction_holds_back_what_is_newer(
    database_url: str, log: PostgresEventLog, owner: asyncpg.Connection
) -> None:
    first = await add(owner)
    older = await asyncpg.connect(database_url)
    transaction = older.transaction()
    await transaction.start()
    late = await add(older)
    newer = [await add(owner), await add(owner)]
    page = await log.read(START, ALL)
    assert ids(page.events) == [first]
    assert (page.is_held_back, page.is_last) == (True, True)
    assert page.xmin < page.xmax
    assert len(page.running) >= 1
    assert not (await log.read(START, EventFilter(frozenset({4})))).is_held_back
    await transaction.commit()
    page = await log.read(page.end, ALL)
    assert ids(page.events) == [late, *newer]
    await older.close()


async def test_a_snapshot_tells_what_it_saw(
    database_url: str, log: PostgresEventLog, owner: asyncpg.Connection
) -> None:
    older = await asyncpg.connect(database_url)
    transaction = older.transaction()
    await transaction.start()
    await add(older)
    seen = await add(owner)
    tail = await log.tail()
    await transaction.commit()
    after = await add(owner)
    events = (await log.read(START, ALL)).events
    assert {event.event_id: tail.saw(event.position) for event in events} == {
        events[0].event_id: False,
        seen: True,
        after: False,
    }
    await older.close()


async def test_the_horizon_comes_with_the_events(log: PostgresEventLog, owner: asyncpg.Connection) -> None:
    await add(owner)
    last = (await log.read(START, ALL)).events[-1].position
    await owner.execute("UPDATE log_state SET horizon_xid = $1, horizon_seq = $2", *last)
    assert (await log.read(START, ALL)).horizon == (await log.tail()).horizon == last


async def test_a_lost_connection_is_made_again(log: PostgresEventLog, owner: asyncpg.Connection) -> None:
    await log.tail()
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    added = await add(owner)
    assert ids((await log.read(START, ALL)).events) == [added]


async def test_a_tail_is_not_taken_for_a_place_in_a_newer_log(log: PostgresEventLog, owner: asyncpg.Connection) -> None:
    await add(owner)
    page = await log.read(START, ALL)
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await log.keep_watermark(page.identity, page.end)  # the connection is made, and what is newest is noted
    await add(owner)
    tail = await log.tail()
    assert tail.end > page.end
    assert not (await log.read(tail.end, ALL)).is_older


async def test_an_old_copy_in_the_place_of_the_database_is_noticed(
    log: PostgresEventLog, owner: asyncpg.Connection
) -> None:
    for _ in range(2):
        await add(owner)
    page = await log.read(START, ALL)
    assert not page.is_older
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid();"
    )
    assert not (await log.read(page.end, ALL)).is_older
    await owner.execute("DELETE FROM session_events WHERE (xid, seq) = ($1, $2)", *page.end)
    assert not (await log.read(page.end, ALL)).is_older, "the connection is the same"
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid();"
    )
    assert (await log.read(page.end, ALL)).is_older


async def test_the_log_is_told_where_it_is(log: PostgresEventLog, owner: asyncpg.Connection) -> None:
    assert await owner.fetchval(HERE) == [None, None]
    identity = (await log.tail()).identity
    assert await owner.fetchval(HERE) == [str(identity.system_identifier), str(identity.timeline)]
    assert identity.timeline == 1
    assert identity.starts == ()
    assert len(identity.secret) == 32


async def test_a_promotion_is_noted_with_the_watermark(
    database: Database, log: PostgresEventLog, owner: asyncpg.Connection
) -> None:
    before = (await log.tail()).identity
    await log.keep_watermark(before, Position(50, 5))
    await log.keep_watermark(before, Position(40, 9))  # never back
    # As if this were the log of the timeline before.
    await owner.execute("UPDATE log_state SET timeline = 0")
    await log.keep_watermark(before, Position(60, 6))  # nobody who reads another timeline may note anything
    promoted = PostgresEventLog(database)
    identity = (await promoted.tail()).identity
    assert identity.starts == ((before.timeline, Position(50, 5)),)
    assert identity != before
    again = PostgresEventLog(database)
    assert (await again.tail()).identity == identity
    await promoted.close()
    await again.close()


async def test_a_log_from_another_cluster_begins_anew_and_keeps_its_events(
    database: Database, owner: asyncpg.Connection
) -> None:
    """As after a dump and a restore: the events' transactions have numbers that this cluster has yet to come to."""
    dumped = [await add(owner) for _ in range(3)]
    await owner.execute(
        "UPDATE session_events SET xid = (xid::text::bigint + 1000000)::text::xid8;"
        "UPDATE log_state SET system_identifier = 1, timeline = 9, horizon_xid = '900000', watermark_xid = '1000000';"
        "INSERT INTO log_timelines VALUES (0, 9, '1', 1)"
    )
    log = PostgresEventLog(database)
    page = await log.read(START, ALL)
    assert (page.identity.timeline, page.identity.starts, page.horizon) == (1, (), START)
    assert ids(page.events) == dumped
    tail = await log.tail()
    added = await add(owner)
    assert ids((await log.read(tail.end, ALL)).events) == [added]
    await log.close()


async def test_two_servers_adopt_a_log_once(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute(
        "UPDATE log_state SET timeline = 0, system_identifier = (SELECT system_identifier FROM pg_control_system())"
    )
    logs = [PostgresEventLog(database) for _ in range(4)]
    pages = await asyncio.gather(*(log.tail() for log in logs))
    assert len({page.identity for page in pages}) == 1
    assert await owner.fetchval("SELECT count(*) FROM log_timelines") == 1
    await asyncio.gather(*(log.close() for log in logs))


# ---- hints


async def test_a_notification_is_heard_and_many_become_one(database: Database) -> None:
    heard: list[bool] = []
    arrived = asyncio.Event()

    def hear(only_saves: bool) -> None:
        heard.append(only_saves)
        arrived.set()

    notifier = Notifier(database)
    tasks = [asyncio.create_task(Listener(database, hear).run()), asyncio.create_task(notifier.run())]
    async with asyncio.timeout(20):
        await arrived.wait()
        assert heard == [False], "what came before it listened may have been missed"
        for only_saves in (True, False):
            arrived.clear()
            for _ in range(100):
                notifier.tell(only_saves=only_saves)
            await arrived.wait()
    assert heard == [False, True, False]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_server_hears_the_others_and_not_itself(database: Database) -> None:
    own, other = Notifier(database), Notifier(database)
    heard: asyncio.Queue[bool] = asyncio.Queue()
    listener = Listener(database, heard.put_nowait, own=own)
    tasks = [asyncio.create_task(work) for work in (listener.run(), own.run(), other.run())]
    async with asyncio.timeout(20):
        assert await heard.get() is False  # it listens
        for _ in range(3):
            own.tell(only_saves=False)
            await _until_sent(own)
        other.tell(only_saves=True)
        assert await heard.get() is True
    assert heard.empty()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_server_that_cannot_notify_hears_the_others(
    database: Database, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = Notifier(database), Notifier(database)
    heard: asyncio.Queue[bool] = asyncio.Queue()
    listener = Listener(database, heard.put_nowait, own=own)
    tasks = [asyncio.create_task(work) for work in (listener.run(), own.run(), other.run())]
    open_one = database.open

    async def refuse(**_: bool) -> asyncpg.Connection:
        refused.set()
        raise OSError

    refused = asyncio.Event()
    async with asyncio.timeout(20):
        assert await heard.get() is False
        for notifier in (other, own):
            notifier.tell(only_saves=False)
            await _until_sent(notifier)
        assert await heard.get() is False  # the other one
        monkeypatch.setattr(database, "open", refuse)
        monkeypatch.setattr(event_hints, "RETRY_PAUSE", 0)
        await owner.execute("SELECT pg_terminate_backend($1, 10000)", own.pid)
        while not refused.is_set():
            own.tell(only_saves=False)
            await asyncio.sleep(0)
        assert own.pid is None
        monkeypatch.setattr(database, "open", open_one)
        other.tell(only_saves=False)
        assert await heard.get() is False
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _until_sent(notifier: Notifier) -> None:
    """Wait until what was told has gone out."""
    sent = asyncio.Event()
    notify = notifier._notify

    async def noting(payload: str) -> None:
        await notify(payload)
        sent.set()

    notifier._notify = noting  # type: ignore[method-assign]
    await sent.wait()
    notifier._notify = notify  # type: ignore[method-assign]


async def test_connections_that_were_cut_are_made_again(
    database: Database, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_hints, "RETRY_PAUSE", 0.01)
    monkeypatch.setattr(event_hints, "CHECK_EVERY", 0.01)
    heard: asyncio.Queue[bool] = asyncio.Queue()
    notifier = Notifier(database)
    tasks = [asyncio.create_task(Listener(database, heard.put_nowait).run()), asyncio.create_task(notifier.run())]
    async with asyncio.timeout(20):
        await heard.get()
        notifier.tell(only_saves=True)
        assert await heard.get() is True
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert await heard.get() is False  # it listens again
        while True:
            # The first may meet the connection that was cut.
            notifier.tell(only_saves=True)
            try:
                async with asyncio.timeout(0.5):
                    assert await heard.get() is True
                break
            except TimeoutError:
                continue
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_others_on_the_channel_do_no_harm(database: Database, owner: asyncpg.Connection) -> None:
    heard: asyncio.Queue[bool] = asyncio.Queue()
    task = asyncio.create_task(Listener(database, heard.put_nowait).run())
    async with asyncio.timeout(20):
        await heard.get()
        await owner.execute("SELECT pg_notify($1, 'something else')", CHANNEL)
        assert await heard.get() is False
    task.cancel()
    await asyncio.wait({task})
