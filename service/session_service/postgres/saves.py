"""The way of a save through the store: planned, flushed with others, and told."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import asyncpg

from session_service.postgres import rows, saving, states, usual_saves
from session_service.postgres.errors import is_connection_lost, translated
from session_service.postgres.heads import Head, HeadCache, read_head
from session_service.postgres.lock_waits import LockWaits
from session_service.postgres.operations import SaveStatus, execute
from session_service.postgres.outcomes import save_refusal
from session_service.postgres.planning import plan
from session_service.postgres.pool import Connection, Database
from session_service.postgres.saving import Planned, Prepared
from session_service.postgres.states import Fetch
from session_service.postgres.write_batcher import WriteBatcher
from session_service.sessions import digests
from session_service.sessions.errors import Contention, CorruptData, InvalidField, ShuttingDown, StateTooLarge
from session_service.sessions.model import Delta, Revision, Save, Saved, SessionKey, Target
from session_service.sessions.observer import Observer
from session_service.sessions.store import NameTaken

OPTIMISTIC_ATTEMPTS = 3
"""Plans made without a session's lock, before one is made with it: others may move the head in between."""

TAKE_LOCK = "SELECT pg_advisory_xact_lock($1)"

_Result = TypeVar("_Result")

_SAVED = int(SaveStatus.SAVED)
"""Compared with at every save: enums are slow to look up and to compare."""

InLock = Callable[[Connection, Prepared, Head | None], Awaitable[tuple[Planned, asyncpg.Record]]]
"""Plans and carries out a save while the session's lock is held, after the head as it is then."""

_NOT_THE_PLAN = (int(SaveStatus.STALE), int(SaveStatus.BUSY))
"""Nothing is wrong with the save, but it must be planned anew."""


class Saves:
    """Saves, each in its session's turn, by what is remembered of the session where that will do."""

    def __init__(self, database: Database, batcher: WriteBatcher, waits: LockWaits, observer: Observer) -> None:
        self._database = database
        self._batcher = batcher
        self._waits = waits
        self._observer = observer
        self._heads = HeadCache()

    def save_many(self, saves: Sequence[Save], now: datetime) -> list[Awaitable[Saved]]:
        """See SessionStore.save_many.

        Step by step for all of them, not save by save: a step's code and data are then in the processor's caches
        for all but the first, which saves about a quarter of the time.
        """
        prepared = [saving.prepare(save, now) for save in saves]
        turns = [self._waits.begin_turn_at_once(save.lock_keys[0]) for save in prepared]
        heads = [self._heads.get(save.key) for save in prepared]
        plans = [_plan_usual(*planned_for) for planned_for in zip(prepared, heads, strict=True)]
        begun: list[Awaitable[Saved]] = []
        for save, turn, head, planned in zip(prepared, turns, heads, plans, strict=True):
            if not turn:  # nor is the head known yet that it will follow
                begun.append(self._save_in_turn(save))
            elif planned is None:
                begun.append(self._begin_otherwise(save, head))
            else:
                begun.append(self._begin_usual(save, planned))
        return begun

    async def save_uploaded(self, prepared: Prepared, conclude: InLock) -> Saved:
        """Save what an upload has brought."""
        with translated():
            async with self._waits.turn(prepared.lock_keys[0]):
                self._heads.forget(prepared.key)
                planned, row = await self._carry_out_locked(prepared, conclude)
                if row["status"] == _SAVED:
                    return self._stored(prepared, planned, row, "upload")
                return await self._not_stored(prepared, row)

    def forget(self, key: SessionKey) -> None:
        """Forget what is remembered of a session that was changed otherwise."""
        self._heads.forget(key)

    def _begin_usual(self, prepared: Prepared, planned: Planned) -> "asyncio.Future[Saved]":
        """Submit a save whose turn has come."""
        saved: asyncio.Future[Saved] = asyncio.get_running_loop().create_future()
        try:
            self._batcher.submit_to(_UsualSave(self, prepared, planned, saved), planned.operation)
        except ShuttingDown as refused:
            self._waits.end_turn(prepared.lock_keys[0])
            saved.set_exception(refused)
        return saved

    def end_usual(self, prepared: Prepared, planned: Planned, row: asyncpg.Record) -> "Saved | asyncio.Task[Saved]":
        """End a usual save that was flushed; or go on with it otherwise, if its plan did not hold."""
        if row["status"] != _SAVED:
            return self._begin_otherwise(prepared, None, row)
        self._waits.end_turn(prepared.lock_keys[0])
        return self._stored(prepared, planned, row)

    def give_up(self, prepared: Prepared) -> None:
        """End a usual save that could not be flushed."""
        self._waits.end_turn(prepared.lock_keys[0])

    async def _save_in_turn(self, prepared: Prepared) -> Saved:
        """Save after those that came before."""
        with translated():
            await self._waits.begin_turn(prepared.lock_keys[0])
        return await self._begin_otherwise(prepared, self._heads.get(prepared.key))

    def _begin_otherwise(
        self, prepared: Prepared, head: Head | None, refused: asyncpg.Record | None = None
    ) -> "asyncio.Task[Saved]":
        """Save by all means; the turn ends with the task, also if that is cancelled before its first step."""
        task = asyncio.get_running_loop().create_task(self._save_otherwise(prepared, head, refused))
        task.add_done_callback(lambda _: self._waits.end_turn(prepared.lock_keys[0]))
        return task

    async def _save_otherwise(self, prepared: Prepared, head: Head | None, refused: asyncpg.Record | None) -> Saved:
        """`refused` is what a first attempt came to."""
        with translated():
            planned, row = await self._carry_out(prepared, head, refused)
            if planned and row["status"] == _SAVED:
                return self._stored(prepared, planned, row)
            return await self._not_stored(prepared, row)

    async def _carry_out(
        self, prepared: Prepared, head: Head | None, row: asyncpg.Record | None
    ) -> tuple[Planned | None, asyncpg.Record]:
        """Plan, perhaps by reading, and submit. `row` is what an attempt came to that was made before."""
        planned = None
        for _ in range(OPTIMISTIC_ATTEMPTS):
            if row and row["status"] not in _NOT_THE_PLAN:
                return planned, row
            if row and row["status"] == SaveStatus.BUSY:
                break
            is_read = head is None or row is not None
            if is_read:
                head = await _read_head(self._database.fetch, prepared)
            try:
                planned = usual_saves.plan(prepared, head) or await plan(prepared, head, self._database.fetch)
            except (InvalidField, StateTooLarge):
                if is_read:
                    raise
                # By what is remembered. The name may be another session's by now, where it is no mistake.
                head = None
                continue
            except CorruptData:
                # The request may have been served while its base was whole.
                planned = saving.base_missing(prepared, head)
                row = await self._batcher.submit(planned.operation)
                if row["status"] == SaveStatus.BASE_NOT_FOUND:
                    raise
                continue
            row = await self._batcher.submit(planned.operation)
        if row and row["status"] not in _NOT_THE_PLAN:
            return planned, row
        self._heads.forget(prepared.key)
        return await self._carry_out_locked(prepared, _plan_and_execute)

    async def _carry_out_locked(self, prepared: Prepared, carry_out: InLock) -> tuple[Planned, asyncpg.Record]:
        """Plans while holding the session's lock, so that nobody can move the head in between."""
        try:
            return await self._carry_out_locked_once(prepared, carry_out)
        except Exception as error:
            if not is_connection_lost(error):
                raise
            # Its outcome is not known, but the request_id keeps it from being stored twice.
            return await self._carry_out_locked_once(prepared, carry_out)

    async def _carry_out_locked_once(self, prepared: Prepared, carry_out: InLock) -> tuple[Planned, asyncpg.Record]:
        async with self._waits.place(), self._database.connection() as connection, connection.transaction():
            for key in sorted(prepared.lock_keys):
                await connection.execute(TAKE_LOCK, key)
            done = await carry_out(connection, prepared, await _read_head(connection.fetch, prepared))
        self._database.on_event(True)
        return done

    async def _not_stored(self, prepared: Prepared, row: asyncpg.Record) -> Saved:
        """Return what the request stored before, or raise why it was refused."""
        status, save = SaveStatus(row["status"]), prepared.save
        self._heads.forget(prepared.key)
        if status is SaveStatus.NAME_TAKEN:
            raise NameTaken
        if status is not SaveStatus.REPLAYED:
            raise save_refusal(status, row, save)
        session = rows.session(row, save.agent_id)
        key = SessionKey(save.tenant, save.agent_id, session.session_name)
        found = await states.describe(self._database.fetch, key, Target(revision=row["saved_revision"]))
        if found.session.session_id != session.session_id:
            raise Contention(f"{key} was purged and made again meanwhile; try again")
        return Saved(session, found.revision, replayed=True)

    def _stored(self, prepared: Prepared, planned: Planned, row: asyncpg.Record, kind: str = "") -> Saved:
        """Remember the new head, tell the observer, and put the answer together."""
        revision = _revision(planned, row["uid"], prepared.save)
        head = planned.head(row["session_id"], row["uid"], row["head_transcript_id"], revision.etag)
        self._heads.put(prepared.key, head)
        operation = planned.operation
        self._observer.saved(
            kind or ("delta" if isinstance(prepared.save.content, Delta) else "snapshot"),
            planned.placement,
            planned.new_messages,
            operation.row.size_bytes,
            operation.stored_bytes,
        )
        return Saved(rows.session(row, prepared.save.agent_id), revision, replayed=False)


class _UsualSave:
    """A usual save under way. Its caller may be gone by its end; its turn is kept until then all the same."""

    __slots__ = ("_planned", "_prepared", "_saved", "_saves")

    def __init__(self, saves: Saves, prepared: Prepared, planned: Planned, saved: "asyncio.Future[Saved]") -> None:
        self._saves = saves
        self._prepared = prepared
        self._planned = planned
        self._saved = saved

    def done(self) -> bool:
        """See Outcome. It is carried out also without its caller: the session's next save builds on it."""
        return False

    def set_result(self, row: asyncpg.Record) -> None:
        """See Outcome."""
        try:
            done = self._saves.end_usual(self._prepared, self._planned, row)
        except Exception as mistake:  # of this program: it is this caller's only
            self._tell(mistake)
            return
        if isinstance(done, asyncio.Task):
            _become(self._saved, done)
        elif not self._saved.done():
            self._saved.set_result(done)

    def set_exception(self, error: Exception) -> None:
        """See Outcome."""
        self._saves.give_up(self._prepared)
        self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._saved.done():
            self._saved.set_exception(error)


def _become(outcome: "asyncio.Future[_Result]", task: "asyncio.Task[_Result]") -> None:
    """Let a future, which may be cancelled, become what a task comes to."""

    def hand_over(_: object) -> None:
        if task.cancelled() or outcome.done():
            outcome.cancel()
            if not task.cancelled():
                task.exception()  # marks it as seen
        elif (error := task.exception()) is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(task.result())

    task.add_done_callback(hand_over)
    outcome.add_done_callback(lambda _: task.cancel())


async def _plan_and_execute(
    connection: Connection, prepared: Prepared, head: Head | None
) -> tuple[Planned, asyncpg.Record]:
    planned = await plan(prepared, head, connection.fetch)
    (row,) = await execute(connection, [planned.operation], wait=True)
    return planned, row


def _plan_usual(prepared: Prepared, head: Head | None) -> Planned | None:
    try:
        return usual_saves.plan(prepared, head)
    except Exception:
        # A mistake of this program. The other way makes it again, where it harms this save only.
        return None


async def _read_head(fetch: Fetch, prepared: Prepared) -> Head | None:
    # A repeated request for a session that the server names finds the one it made.
    made_by = prepared.request_id if prepared.save.server_named else None
    return await read_head(fetch, prepared.key, made_by)


def _revision(planned: Planned, uid: UUID, save: Save) -> Revision:
    row = planned.operation.row
    revision = row.planned_head + 1
    return Revision(
        revision,
        digests.etag(uid, revision, row.digest, row.state_digest),
        row.planned_head if row.base_revision is None else row.base_revision,
        save.checkpoint_id,
        row.message_count,
        row.size_bytes,
        row.save_time,
        save.metadata,
    )
