"""What the write batcher carries: rows for the functions of the migrations, and the calls themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from session_service.postgres.pool import Connection


class SaveStatus(IntEnum):
    """What save_sessions_v2 says of an item."""

    SAVED = 0
    REPLAYED = 1
    REUSED = 2
    DELETED = 3
    REVISION_MISMATCH = 4
    USER_MISMATCH = 5
    CHECKPOINT_EXISTS = 6
    STALE = 7
    NAME_TAKEN = 8
    BUSY = 9
    BASE_NOT_FOUND = 10


class ChangeStatus(IntEnum):
    """What change_session_v2, change_sessions_v1 and purge_session_v2 say of an item."""

    DONE = 0
    REPLAYED = 1
    REUSED = 2
    DELETED = 3
    REVISION_MISMATCH = 4
    NOT_DELETED = 5
    NOT_FOUND = 6
    STALE = 7
    BUSY = 9


class SaveRow(NamedTuple):
    """What every save has, in the order of save_item_v2."""

    bucket: int
    tenant_id: int
    agent_id: str
    session_name: str
    planned_session_id: int
    planned_head: int
    base_revision: int | None
    expected_revision: int | None
    request_id: UUID
    fingerprint: bytes
    user_id: str
    client_id: str
    actor: str
    labels: str | None
    checkpoint_id: str | None
    metadata: str | None
    save_time: datetime
    event_id: UUID
    transcript_id: int | None
    transcript_length: int
    message_count: int
    message_bytes: int
    size_bytes: int
    digest: bytes
    state_digest: bytes
    state: bytes
    state_codec: int
    state_raw_size: int
    value_digests: bytes | None
    value_names: str | None
    checksum: int
    last_count: int
    last_raw_size: int
    last_codec: int
    last_payload: bytes | None
    last_checksum: int


class SegmentRow(NamedTuple):
    """One segment, in the order of save_segment_v1."""

    first_message: int
    message_count: int
    end_bytes: int
    raw_size: int
    codec: int
    payload: bytes
    digest: bytes
    checksum: int


class ValueRow(NamedTuple):
    """One big value, in the order of save_value_v1."""

    digest: bytes
    raw_size: int
    codec: int
    payload: bytes
    checksum: int


class SaveRest(NamedTuple):
    """What only some saves have, in the order of save_rest_v2."""

    server_named: bool
    base_missing: bool
    uid: UUID
    parent_transcript_id: int | None
    parent_message_count: int
    parent_digest: bytes
    parent_bytes: int
    depth: int
    segments: Sequence[SegmentRow] | None
    """All but the last, which is in the SaveRow."""
    values: Sequence[ValueRow] | None
    repair: bool
    """Overwrite values that are stored already."""


class ChangeRow(NamedTuple):
    """One restore, delete or undelete, in the order of the parameters from p_type on, of either function."""

    type: int
    bucket: int
    tenant_id: int
    agent_id: str
    session_name: str
    expected_revision: int | None
    read_session_id: int | None
    revision: int | None
    request_id: UUID
    fingerprint: bytes
    client_id: str
    actor: str
    change_time: datetime
    event_id: UUID


class SaveOperation(NamedTuple):
    """A save with everything it writes."""

    lock_keys: Sequence[int]
    """The session's first; they tell operations on the same session, too."""
    row: SaveRow
    rest: SaveRest | None
    """None: the usual save, of which there is nothing to judge; see save_sessions_v2."""
    stored_bytes: int
    """Payload bytes to be written."""


@dataclass(frozen=True, slots=True)
class ChangeOperation:
    """A restore, delete or undelete."""

    lock_keys: Sequence[int]
    row: ChangeRow

    stored_bytes = 0


Operation = SaveOperation | ChangeOperation

SAVE = "SELECT * FROM save_sessions_v2($1, $2, $3, $4, $5)"
CHANGE_ONE = """
    SELECT * FROM change_session_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
"""
CHANGE = """
    SELECT * FROM change_sessions_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
"""


async def execute(connection: Connection, batch: Sequence[Operation], *, wait: bool) -> Sequence[asyncpg.Record]:
    """Carries out operations of one kind in one transaction, at most one for each session.

    Args:
        connection: with no transaction open, or one that holds the batch's locks and has written nothing.
        batch: all saves or all changes.
        wait: whether to wait for sessions that someone else is changing (else: Status.BUSY).

    Returns:
        The result rows, in the order of the batch.
    """
    if len(batch) == 1 and isinstance(batch[0], ChangeOperation):
        return await connection.fetch(CHANGE_ONE, wait, *batch[0].lock_keys, *batch[0].row)
    locks = sorted((key, item) for item, op in enumerate(batch, 1) for key in op.lock_keys)
    head = (wait, [item for _, item in locks], [key for key, _ in locks])
    saves = [op for op in batch if isinstance(op, SaveOperation)]
    if saves:
        # NULL where it will do: each value is encoded by itself.
        items = [(item, *op.row, op.rest) for item, op in enumerate(saves, 1)]
        judged = [item for item, op in enumerate(saves, 1) if op.rest is not None]
        rows = await connection.fetch(SAVE, *head, judged, items)
    else:
        changes = [op.row for op in batch if isinstance(op, ChangeOperation)]
        rows = await connection.fetch(CHANGE, *head, *_columns(changes, len(ChangeRow._fields)))
    return rows if len(rows) == 1 else sorted(rows, key=_item)


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _item(row: asyncpg.Record) -> int:
    return int(row["item"])
