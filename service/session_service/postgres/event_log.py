"""EventLog on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from session_service.postgres.errors import is_connection_lost, translated
from session_service.postgres.pool import Database
from session_service.sessions import placement
from session_service.sessions.events import (
    LAST_SEQ,
    START,
    Event,
    EventFilter,
    LogIdentity,
    LogPage,
    Position,
)

if TYPE_CHECKING:  # generic in the stubs only
    _Connection = asyncpg.Connection[asyncpg.Record]

SOURCE = 0
"""The log: one so far."""

PAGE = 500
"""Events looked at by one statement: some milliseconds, also of the event loop."""

END = Position((1 << 63) - 1, LAST_SEQ)
"""After all events."""

ADOPTION_TIMEOUT = 600.0
"""Seconds. Only a log that came from another cluster takes long: its events are numbered anew."""

# pg_control_checkpoint() would still tell the old timeline for a while after a promotion. On a replica this fails:
# a log that nobody writes is not followed.
WHERE_AM_I = """
    SELECT c.system_identifier::numeric AS system_identifier,
        ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint AS timeline
    FROM pg_control_system() AS c
"""
NEWEST = "SELECT e.xid, e.seq FROM session_events AS e ORDER BY e.xid DESC, e.seq DESC LIMIT 1"
ADOPT = "SELECT * FROM adopt_log_v1($1, $2, $3)"
# The last event of all bounds what the snapshot saw: the numbers of later transactions may be given out again after a
# crash (see _page).
TAIL = """
    WITH log AS MATERIALIZED (
        SELECT l.horizon_xid, l.horizon_seq, pg_current_snapshot() AS snapshot,
            pg_snapshot_xmin(pg_current_snapshot()) AS xmin
        FROM log_state AS l WHERE l.source = $1
    )
    SELECT log.horizon_xid, log.horizon_seq, log.snapshot, false AS held_back, true AS is_last, false AS has_grown,
        coalesce(settled.xid, log.horizon_xid) AS last_xid, coalesce(settled.seq, log.horizon_seq) AS last_seq,
        coalesce((SELECT e.xid FROM session_events AS e ORDER BY e.xid DESC, e.seq DESC LIMIT 1), '0') AS newest_xid,
        NULL::xid8 AS xid
    FROM log
    LEFT JOIN LATERAL (
        SELECT e.xid, e.seq FROM session_events AS e
        WHERE (e.xid, e.seq) > (log.horizon_xid, log.horizon_seq) AND e.xid < log.xmin
        ORDER BY e.xid DESC, e.seq DESC LIMIT 1
    ) AS settled ON true
"""
# One statement, so one snapshot: horizon, watermark and events belong together. A row comes in any case.
# It looks at so many rows, not for so many: a filter that matches little must not make a statement long. last_* is the
# last of them. Spans agents: the feed, and watches of a whole tenant.
READ = """
    WITH log AS MATERIALIZED (
        SELECT l.horizon_xid, l.horizon_seq, pg_current_snapshot() AS snapshot,
            pg_snapshot_xmin(pg_current_snapshot()) AS xmin
        FROM log_state AS l WHERE l.source = $1
    ), looked_at AS MATERIALIZED (
        SELECT v.* FROM log CROSS JOIN LATERAL (
            SELECT e.xid, e.seq, e.tenant_id, e.revision, e.create_time, e.bucket, e.type, e.event_id, e.request_id,
                e.agent_id, e.session_name, e.client_id, e.actor
            FROM session_events AS e
            WHERE (e.xid, e.seq) > ($2, $3) AND (e.xid, e.seq) <= ($4, $5) AND e.xid < log.xmin
            ORDER BY e.xid, e.seq LIMIT $6
        ) AS v
    ), told AS MATERIALIZED (
        SELECT log.*, (SELECT count(*) FROM looked_at) AS looked_at,
            EXISTS (
                -- A long transaction may hold back millions.
                SELECT FROM (
                    SELECT e.type FROM session_events AS e WHERE e.xid >= log.xmin ORDER BY e.xid, e.seq LIMIT $6
                ) AS h WHERE h.type = ANY ($7::smallint[])
            ) AS held_back
        FROM log
    ), last AS MATERIALIZED (
        SELECT w.xid, w.seq FROM looked_at AS w ORDER BY w.xid DESC, w.seq DESC LIMIT 1
    )
    SELECT told.horizon_xid, told.horizon_seq, told.snapshot, told.held_back,
        told.looked_at < $6 AS is_last, told.looked_at > 0 AS has_grown, last.xid AS last_xid, last.seq AS last_seq, v.*
    FROM told
    LEFT JOIN last ON true
    LEFT JOIN LATERAL (
        SELECT * FROM looked_at AS w
        WHERE w.type = ANY ($7::smallint[])
            AND ($8::bigint IS NULL OR w.tenant_id = $8)
            AND ($9::integer IS NULL OR (w.bucket = $9 AND w.agent_id = $10))
            AND ($11::text IS NULL OR w.session_name = $11)
    ) AS v ON true
    ORDER BY v.xid, v.seq
"""
# Forward only, and by nobody who still reads an earlier timeline.
KEEP_WATERMARK = """
    UPDATE log_state AS l SET watermark_xid = $4, watermark_seq = $5, watermark_time = now()
    WHERE l.source = $1 AND l.system_identifier = $2 AND l.timeline = $3
        AND (l.watermark_xid, l.watermark_seq) < ($4, $5)
"""


class PostgresEventLog:
    """Reads the log over one connection, one statement at a time."""

    def __init__(self, database: Database, *, source: int = SOURCE, page: int = PAGE) -> None:
        self._database = database
        self._source = source
        self._page = page
        self._turn = asyncio.Lock()
        self._connection: _Connection | None = None
        self._identity: LogIdentity
        self._newest: Position | None = None
        """The newest event when the connection was made, until the log is read."""

    async def read(self, after: Position, wanted: EventFilter, up_to: Position | None = None) -> LogPage:
        """See EventLog."""
        tenant, agent_id = wanted.tenant, wanted.agent_id
        with translated():
            async with self._turn:
                rows = await self._fetch(
                    READ,
                    *after,
                    *(up_to or END),
                    self._page,
                    sorted(wanted.types),
                    tenant.tenant_id if tenant else None,
                    placement.bucket_of(tenant, agent_id) if tenant and agent_id else None,
                    agent_id,
                    wanted.session_name or None,
                )
                page = _page(self._identity, rows, after, up_to)
                # Later on, places may be newer than that.
                newest, self._newest = self._newest, None
                return page._replace(is_older=newest is not None and after > max(newest, page.horizon))

    async def tail(self) -> LogPage:
        """See EventLog."""
        with translated():
            async with self._turn:
                rows = await self._fetch(TAIL)
                page = _page(self._identity, rows, START, None)
                if self._newest is not None:  # whoever goes on from this end has gone back nowhere
                    self._newest = max(self._newest, page.end)
                return page._replace(xmax=rows[0]["newest_xid"] + 1)

    async def keep_watermark(self, identity: LogIdentity, position: Position) -> None:
        """See EventLog."""
        with translated():
            async with self._turn:
                await self._fetch(KEEP_WATERMARK, identity.system_identifier, identity.timeline, *position)

    async def close(self) -> None:
        """Closes the connection."""
        self._drop()

    async def _fetch(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        """Repeats once over a new connection."""
        try:
            return await self._fetch_once(query, *args)
        except Exception as error:
            if not is_connection_lost(error):
                raise
        return await self._fetch_once(query, *args)

    async def _fetch_once(self, query: str, *args: Any) -> Sequence[asyncpg.Record]:
        connection = await self._connected()
        try:
            return await connection.fetch(query, self._source, *args)
        except asyncio.CancelledError:
            raise  # asyncpg cancels the statement, and the connection is good again
        except BaseException as error:
            if not isinstance(error, asyncpg.PostgresError) or is_connection_lost(error):
                self._drop()
            raise

    async def _connected(self) -> _Connection:
        if self._connection is None or self._connection.is_closed():
            connection = await self._database.open()
            try:
                self._identity = await _adopt(connection, self._source)
                newest = await connection.fetchrow(NEWEST)
                self._newest = Position(*newest) if newest else START
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


async def _adopt(connection: _Connection, source: int) -> LogIdentity:
    """Which log it is that this connection reads."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{ADOPTION_TIMEOUT:.0f}s'")
        here = await connection.fetchrow(WHERE_AM_I)
        row = here and await connection.fetchrow(ADOPT, source, *here.values(), timeout=ADOPTION_TIMEOUT)
    if row is None:
        raise RuntimeError("log_state has no row")
    timelines, xids, seqs = row["start_timelines"] or (), row["start_xids"] or (), row["start_seqs"] or ()
    starts = tuple((line, Position(xid, seq)) for line, xid, seq in zip(timelines, xids, seqs, strict=True))
    return LogIdentity(int(row["system_identifier"]), row["timeline"], starts, row["token_secret"])


def _page(identity: LogIdentity, rows: Sequence[asyncpg.Record], after: Position, up_to: Position | None) -> LogPage:
    """A page that ends with the last event that was looked at, though the watermark may be far beyond it.

    Of transactions that were rolled back, or wrote no event, PostgreSQL may know nothing any more after a crash. Then
    it gives their numbers out again, and events would come to lie before a place that was taken from them. An event
    that can be seen is on disk, and with it that all numbers up to its own are taken.
    """
    first = rows[0]
    xmin, xmax, running = first["snapshot"]
    end = after if first["last_xid"] is None else Position(first["last_xid"], first["last_seq"])
    if first["is_last"] and up_to and up_to.xid < xmin:
        end = up_to
    return LogPage(
        identity=identity,
        events=() if first["xid"] is None else [_event(row) for row in rows],
        end=end,
        is_last=first["is_last"],
        has_grown=first["has_grown"],
        is_held_back=first["held_back"],
        horizon=Position(first["horizon_xid"], first["horizon_seq"]),
        xmin=xmin,
        xmax=xmax,
        running=frozenset(running),
    )


def _event(row: asyncpg.Record) -> Event:
    return Event(
        position=Position(row["xid"], row["seq"]),
        type=row["type"],
        tenant_id=row["tenant_id"],
        agent_id=row["agent_id"],
        session_name=row["session_name"],
        revision=row["revision"],
        create_time=row["create_time"],
        event_id=row["event_id"],
        request_id=row["request_id"],
        client_id=row["client_id"] or "",
        actor=row["actor"],
    )
