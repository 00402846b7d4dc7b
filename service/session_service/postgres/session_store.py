"""SessionStore on PostgreSQL."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID, uuid4

import asyncpg

from session_service.postgres import downloads, lists, rows, states
from session_service.postgres.downloads import Opened
from session_service.postgres.errors import translated
from session_service.postgres.lock_waits import LockWaits
from session_service.postgres.operations import (
    ChangeOperation,
    ChangeRow,
    ChangeStatus,
    Operation,
    execute,
)
from session_service.postgres.outcomes import change_refusal
from session_service.postgres.pool import Database
from session_service.postgres.saves import Saves
from session_service.postgres.transfer_work import TransferWork
from session_service.postgres.uploads import PostgresUpload, Writing
from session_service.postgres.write_batcher import WriteBatcher
from session_service.sessions import digests, placement
from session_service.sessions.errors import Contention, CorruptData, StateTooLarge
from session_service.sessions.events import EventType
from session_service.sessions.model import (
    Change,
    Download,
    Restored,
    Revision,
    RevisionQuery,
    Save,
    Saved,
    Session,
    SessionKey,
    SessionQuery,
    Target,
    Tenant,
)
from session_service.sessions.observer import Observer, SilentObserver
from session_service.sessions.uploads import UPLOAD_SECONDS

RESTORE_ATTEMPTS = 3
"""Reads of a session that is purged and made again between its read and its event."""

_Read = TypeVar("_Read", Restored, Opened)

TENANT = "SELECT tenant_id, digest_secret FROM tenants WHERE name = $1"
PURGE = "SELECT * FROM purge_session_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"


class PostgresSessionStore:
    """Reads go through the pool, changes through the write batcher."""

    def __init__(
        self,
        database: Database,
        batcher: WriteBatcher,
        observer: Observer | None = None,
        *,
        max_read_bytes: int = states.NO_LIMIT,
        upload_seconds: float = UPLOAD_SECONDS,
    ) -> None:
        """`max_read_bytes`: larger states are not read at once; `upload_seconds`: how long an upload may take."""
        self._database = database
        self._batcher = batcher
        self._observer = observer or SilentObserver()
        self._tenants: dict[str, Tenant] = {}
        # Half of the connections: the others serve everyone who need not wait.
        self._waits = LockWaits(max(1, database.pool_size // 2))
        self._saves = Saves(database, batcher, self._waits, self._observer)
        self._max_read_bytes = max_read_bytes
        self._work = TransferWork(database)
        self._writing = Writing(self._work, self._saves, upload_seconds)

    async def tenant(self, name: str) -> Tenant:
        """See SessionStore. Tenants never change, so each is read once."""
        if name not in self._tenants:
            row = await self._database.fetchrow(TENANT, name)
            if row is None:
                raise LookupError(f"no tenant {name!r}")
            self._tenants[name] = Tenant(row["tenant_id"], name, row["digest_secret"])
        return self._tenants[name]

    def save(self, save: Save, now: datetime) -> Awaitable[Saved]:
        """See SessionStore."""
        return self._saves.save_many((save,), now)[0]

    def save_many(self, saves: Sequence[Save], now: datetime) -> Sequence[Awaitable[Saved]]:
        """See SessionStore."""
        return self._saves.save_many(saves, now)

    async def begin_upload(self, save: Save) -> PostgresUpload:
        """See SessionStore."""
        return await PostgresUpload.begin(self._writing, save)

    async def restore(self, change: Change, target: Target, message_limit: int, now: datetime) -> Restored:
        """See SessionStore."""
        asked = (target.revision, target.checkpoint_id, message_limit)
        found, session = await self._recorded(
            change, target, asked, now, lambda wanted: self._read(change.key, wanted, message_limit)
        )
        return replace(found, session=session)

    async def download(
        self, change: Change, target: Target, message_limit: int, now: datetime, *, recorded: bool
    ) -> Download:
        """See SessionStore."""

        def open_state(wanted: Target) -> Awaitable[Opened]:
            return downloads.open_state(self._database.fetch, change.key, wanted, message_limit)

        with self._noticing_damage():
            if recorded:
                asked = (target.revision, target.checkpoint_id, message_limit)
                opened, session = await self._recorded(change, target, asked, now, open_state)
            else:
                opened = await open_state(target)
                session = opened.session
        return Download(session, opened.revision, opened.state, self._parts(opened))

    async def delete(self, change: Change, *, purge: bool, now: datetime) -> Session:
        """See SessionStore."""
        if purge:
            return await self._purge(change, now)
        row, _ = await self._change(EventType.DELETED, change, (), now)
        self._saves.forget(change.key)
        return rows.session(row, change.key.agent_id)

    async def undelete(self, change: Change, now: datetime) -> Session:
        """See SessionStore."""
        row, _ = await self._change(EventType.UNDELETED, change, (), now)
        return rows.session(row, change.key.agent_id)

    async def get_session(self, key: SessionKey) -> Session:
        """See SessionStore."""
        return await lists.session(self._database.fetch, key)

    async def get_revision(self, key: SessionKey, target: Target, *, with_state: bool, message_limit: int) -> Restored:
        """See SessionStore."""
        if with_state:
            return await self._read(key, target, message_limit)
        return await states.describe(self._database.fetch, key, target)

    async def list_sessions(self, query: SessionQuery) -> Sequence[Session]:
        """See SessionStore."""
        return await lists.sessions(self._database.fetch, query)

    async def list_revisions(self, query: RevisionQuery) -> Sequence[Revision]:
        """See SessionStore."""
        return await lists.revisions(self._database.fetch, query)

    async def _read(self, key: SessionKey, target: Target, message_limit: int) -> Restored:
        limit = self._max_read_bytes
        with self._noticing_damage():
            found = await states.read(self._database.fetch, key, target, message_limit, limit)
        if found.pieces is not None:
            self._observer.restored(found.revision.message_count, sum(map(len, found.pieces)))
            return found
        if not message_limit:
            raise _too_large(key, found.revision, limit, found.revision.size_bytes)
        return await self._read_in_parts(key, Target(revision=found.revision.revision), message_limit)

    async def _read_in_parts(self, key: SessionKey, target: Target, message_limit: int) -> Restored:
        """The newest messages of a large state, if they are no more than a restore may give."""
        with self._noticing_damage():
            opened = await downloads.open_state(self._database.fetch, key, target, message_limit)
        pieces, size = [opened.state], len(opened.state)
        async with aclosing(self._parts(opened)) as parts:
            async for part in parts:
                pieces.append(part)
                size += len(part)
                if size > self._max_read_bytes:
                    raise _too_large(key, opened.revision, self._max_read_bytes, size)
        return Restored(opened.session, opened.revision, pieces)

    async def _parts(self, opened: Opened) -> AsyncGenerator[bytes, None]:
        size = len(opened.state)
        with self._noticing_damage():
            async with aclosing(downloads.parts(self._work, opened)) as parts:
                async for part in parts:
                    size += len(part)
                    yield part
        self._observer.restored(opened.revision.message_count - opened.low, size)

    @contextmanager
    def _noticing_damage(self) -> Iterator[None]:
        try:
            yield
        except CorruptData:
            self._observer.corrupted()
            raise

    async def _recorded(
        self,
        change: Change,
        target: Target,
        asked: tuple[int | str | None, ...],
        now: datetime,
        read: Callable[[Target], Awaitable[_Read]],
    ) -> tuple[_Read, Session]:
        """What is read of a revision, and the session after it was recorded as restored."""
        for _ in range(RESTORE_ATTEMPTS):
            found = await read(target)
            row, status = await self._change(EventType.RESTORED, change, asked, now, found)
            first = row["changed_revision"]
            if status is ChangeStatus.REPLAYED and first != found.revision.revision:
                found = await read(Target(revision=first))
            # Else the session was purged, and made again, after it was read.
            if status is not ChangeStatus.STALE and found.session.session_id == row["session_id"]:
                return found, rows.session(row, change.key.agent_id)
        raise Contention(f"{change.key} is being purged and made again; try again")

    async def _change(
        self,
        kind: EventType,
        change: Change,
        asked: tuple[int | str | None, ...],
        now: datetime,
        read: Restored | Opened | None = None,
    ) -> tuple[asyncpg.Record, ChangeStatus]:
        key = change.key
        row = ChangeRow(
            type=kind,
            bucket=placement.bucket_of(key.tenant, key.agent_id),
            tenant_id=key.tenant.tenant_id,
            agent_id=key.agent_id,
            session_name=key.session_name,
            expected_revision=change.expected_revision,
            read_session_id=read.session.session_id if read else None,
            revision=read.revision.revision if read else None,
            request_id=_request_id(change),
            fingerprint=_fingerprint(kind, change, asked),
            client_id=change.client_id,
            actor=change.actor,
            change_time=now,
            event_id=uuid4(),
        )
        with translated():
            result = await self._submit(ChangeOperation((placement.lock_key(key),), row))
        status = ChangeStatus(result["status"])
        if status not in (ChangeStatus.DONE, ChangeStatus.REPLAYED, ChangeStatus.STALE):
            raise change_refusal(status, result, key, change)
        return result, status

    async def _submit(self, operation: Operation) -> asyncpg.Record:
        row = await self._batcher.submit(operation)
        if row["status"] != ChangeStatus.BUSY:
            return row
        turn = self._waits.turn(operation.lock_keys[0])
        async with turn, self._waits.place(), self._database.connection() as connection:
            (row,) = await execute(connection, [operation], wait=True)
        self._database.on_event(False)
        return row

    async def _purge(self, change: Change, now: datetime) -> Session:
        key = change.key
        arguments = (
            placement.lock_key(key),
            placement.bucket_of(key.tenant, key.agent_id),
            key.tenant.tenant_id,
            key.agent_id,
            key.session_name,
            change.expected_revision,
            _request_id(change),
            _fingerprint(EventType.DELETED, change, ("purge",)),
            change.client_id,
            change.actor,
            now,
            uuid4(),
        )
        # Safe to repeat over a new connection, as fetch() does: the request_id finds the first one's event.
        async with self._waits.turn(arguments[0]), self._waits.place():
            row = await self._database.fetchrow(PURGE, *arguments)
        self._database.on_event(False)
        if row is None:
            raise RuntimeError("purge_session_v2 returned nothing")
        status = ChangeStatus(row["status"])
        if status not in (ChangeStatus.DONE, ChangeStatus.REPLAYED):
            raise change_refusal(status, row, key, change)
        return rows.session(row, key.agent_id)


def _too_large(key: SessionKey, revision: Revision, limit: int, actual: int) -> StateTooLarge:
    return StateTooLarge(
        f"{key} revision {revision.revision}: the state has {actual} bytes; at most {limit} are returned at once: "
        "use DownloadSession, or a message_limit",
        {"limit": str(limit), "actual": str(actual)},
    )


def _request_id(change: Change) -> UUID:
    if change.request_id is None:
        raise ValueError("a change without request_id cannot be repeated")
    return change.request_id


def _fingerprint(kind: EventType, change: Change, asked: tuple[int | str | None, ...]) -> bytes:
    key = change.key
    fields: tuple[object, ...] = (
        int(kind),
        key.agent_id,
        key.session_name,
        change.expected_revision,
        change.client_id,
        *asked,
    )
    return digests.of_request(key.tenant.digest_secret, fields)
