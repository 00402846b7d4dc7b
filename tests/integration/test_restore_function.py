"""change_session_v2, for a change that comes alone, does what change_sessions_v1 does for many."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from session_service.postgres.operations import (
    CHANGE,
    CHANGE_ONE,
    ChangeOperation,
    ChangeRow,
    ChangeStatus,
    _columns,
    execute,
)
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions import placement
from session_service.sessions.events import EventType
from session_service.sessions.model import Change, Save, SessionKey, Tenant

from tests.model.stores import content, postgres_store

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
RESTORED, DELETED, UNDELETED = EventType.RESTORED, EventType.DELETED, EventType.UNDELETED
LOCK = 4711


@dataclass
class Desk:
    """Sessions in all conditions, and both functions."""

    store: PostgresSessionStore
    tenant: Tenant
    owner: "asyncpg.Connection[asyncpg.Record]"

    def key(self, name: str) -> SessionKey:
        return SessionKey(self.tenant, "ada", name)

    async def save(self, name: str, times: int = 1) -> int:
        """Save so many revisions, and return the session's id."""
        for number in range(times):
            save = Save(self.tenant, "ada", name, content([f"{number}"]), "test", request_id=uuid4())
            saved = await self.store.save(save, NOW)
        return saved.session.session_id

    def row(self, kind: EventType, name: str, request_id: UUID | None = None, **more: Any) -> ChangeRow:
        row = ChangeRow(
            type=kind,
            bucket=placement.bucket_of(self.tenant, "ada"),
            tenant_id=self.tenant.tenant_id,
            agent_id="ada",
            session_name=name,
            expected_revision=None,
            read_session_id=None,
            revision=None,
            request_id=request_id or uuid4(),
            fingerprint=b"f" * 16,
            client_id="",
            actor="test",
            change_time=NOW + timedelta(seconds=5),
            event_id=uuid4(),
        )
        return row._replace(**more)

    async def both(self, row: ChangeRow) -> dict[str, Any]:
        """Let each function carry the change out, undo the first's; return the answer, which must be the same."""
        one = await self._undone(CHANGE_ONE, False, LOCK, *row)
        many = await self._undone(CHANGE, False, [1], [LOCK], *_columns([row], len(row)))
        assert one == many
        (answer,) = await self.owner.fetch(CHANGE_ONE, False, LOCK, *row)
        return dict(answer)

    async def _undone(self, query: str, *arguments: Any) -> Any:
        transaction = self.owner.transaction()
        await transaction.start()
        (answer,) = await self.owner.fetch(query, *arguments)
        sessions = await self.owner.fetch("SELECT s.* FROM sessions AS s ORDER BY session_id")
        events = await self.owner.fetch(
            "SELECT tenant_id, session_id, revision, create_time, bucket, type, event_id, request_id, fingerprint,"
            " agent_id, session_name, client_id, actor FROM session_events ORDER BY seq"
        )
        await transaction.rollback()
        told = {name: value for name, value in answer.items() if name != "item"}
        if told["status"] == ChangeStatus.BUSY:
            told = {"status": told["status"]}  # the rest nobody looks at
        return told, [*map(dict, sessions)], [*map(dict, events)]


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[Desk]:
    owner = await asyncpg.connect(database_url, server_settings={"enable_seqscan": "off"})
    try:
        async with postgres_store(database_url) as (store, tenant):
            yield Desk(store, tenant, owner)
    finally:
        await owner.close()


@pytest.mark.parametrize("more", [{}, {"revision": 2}, {"client_id": "c"}, {"expected_revision": 3}])
async def test_each_kind_of_change_is_carried_out(desk: Desk, more: dict[str, Any]) -> None:
    session_id = await desk.save("s", 3)
    restored = await desk.both(desk.row(RESTORED, "s", read_session_id=session_id, **more))
    assert (restored["status"], restored["changed_revision"]) == (ChangeStatus.DONE, more.get("revision", 3))
    assert restored["last_restore_time"] == NOW + timedelta(seconds=5)
    deleted = await desk.both(desk.row(DELETED, "s"))
    assert deleted["delete_time"] == deleted["update_time"] == NOW + timedelta(seconds=5)
    undeleted = await desk.both(desk.row(UNDELETED, "s", change_time=NOW))
    assert (undeleted["delete_time"], undeleted["update_time"]) == (None, NOW + timedelta(seconds=5))


async def test_times_do_not_go_back(desk: Desk) -> None:
    await desk.save("s")
    for seconds in (5, 4, 6):
        done = await desk.both(desk.row(RESTORED, "s", change_time=NOW + timedelta(seconds=seconds)))
        assert done["last_restore_time"] == NOW + timedelta(seconds=max(seconds, 5))


async def test_refusals_are_the_same(desk: Desk) -> None:
    session_id = await desk.save("s", 2)
    await desk.save("gone")
    await desk.both(desk.row(DELETED, "gone"))
    for row, status in (
        (desk.row(RESTORED, "nobody"), ChangeStatus.NOT_FOUND),
        (desk.row(RESTORED, "s", read_session_id=session_id + 1), ChangeStatus.STALE),
        (desk.row(RESTORED, "gone"), ChangeStatus.DELETED),
        (desk.row(DELETED, "gone"), ChangeStatus.DELETED),
        (desk.row(DELETED, "s", expected_revision=1), ChangeStatus.REVISION_MISMATCH),
        (desk.row(UNDELETED, "s", expected_revision=1), ChangeStatus.REVISION_MISMATCH),
        (desk.row(UNDELETED, "s"), ChangeStatus.NOT_DELETED),
        (desk.row(UNDELETED, "gone", expected_revision=1), ChangeStatus.DONE),
    ):
        assert (await desk.both(row))["status"] == status, row


async def test_a_repeated_request_is_found(desk: Desk) -> None:
    await desk.save("s", 2)
    await desk.save("t")
    request_id = uuid4()
    first = await desk.both(desk.row(RESTORED, "s", request_id, revision=1))
    assert first["status"] == ChangeStatus.DONE
    await desk.save("s")
    again = await desk.both(desk.row(RESTORED, "s", request_id, revision=2))
    assert (again["status"], again["changed_revision"]) == (ChangeStatus.REPLAYED, 1)
    reused = desk.row(RESTORED, "s", request_id, fingerprint=b"g" * 16)
    assert (await desk.both(reused))["status"] == ChangeStatus.REUSED
    # Another kind, or another session, is another request.
    assert (await desk.both(desk.row(RESTORED, "t", request_id)))["status"] == ChangeStatus.DONE
    assert (await desk.both(desk.row(DELETED, "s", request_id)))["status"] == ChangeStatus.DONE
    # Also one that could not be carried out any more.
    assert (await desk.both(desk.row(RESTORED, "s", request_id)))["status"] == ChangeStatus.REPLAYED


async def test_a_session_that_was_made_again_is_another_one(desk: Desk) -> None:
    await desk.save("s")
    request_id = uuid4()
    assert (await desk.both(desk.row(RESTORED, "s", request_id)))["status"] == ChangeStatus.DONE
    await desk.store.delete(Change(desk.key("s"), "test", uuid4()), purge=True, now=NOW)
    await desk.save("s")
    assert (await desk.both(desk.row(RESTORED, "s", request_id)))["status"] == ChangeStatus.DONE


async def test_a_session_that_someone_else_changes_is_busy_or_waited_for(desk: Desk, database_url: str) -> None:
    await desk.save("s")
    other = await asyncpg.connect(database_url)
    try:
        await other.execute("SELECT pg_advisory_lock($1)", LOCK)
        assert (await desk.both(desk.row(RESTORED, "s")))["status"] == ChangeStatus.BUSY
        operation = ChangeOperation((LOCK,), desk.row(RESTORED, "s"))
        await desk.owner.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await execute(desk.owner, [operation], wait=True)
        await other.execute("SELECT pg_advisory_unlock($1)", LOCK)
        assert (await execute(desk.owner, [operation], wait=True))[0]["status"] == ChangeStatus.DONE
    finally:
        await other.close()
