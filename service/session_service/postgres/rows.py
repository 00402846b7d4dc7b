"""From rows of PostgreSQL to the domain's values."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from session_service.sessions import digests
from session_service.sessions.model import NO_ENTRIES, Revision, Session

SESSION_COLUMNS = (
    "s.session_id, s.agent_id, s.session_name, s.uid, s.user_id, s.head_revision, s.message_count, s.size_bytes, "
    "s.labels, s.create_time, s.update_time, s.last_restore_time, s.delete_time"
)
"""Of sessions AS s."""

REVISION_COLUMNS = ", ".join(
    f"r.{column} AS r_{column}"
    for column in (
        *(
            "revision",
            "digest",
            "state_digest",
            "parent_revision",
            "checkpoint_id",
            "message_count",
            "size_bytes",
        ),
        *("create_time", "metadata"),
    )
)
"""Of revisions AS r. The prefix keeps them apart from a session's in one row."""


Row = asyncpg.Record | Mapping[str, Any]
"""Columns by name."""


def names(columns: str) -> tuple[str, ...]:
    """The names of a list of columns such as those above."""
    return tuple(column.split()[-1].rpartition(".")[2] for column in columns.split(", "))


def session(row: Row, agent_id: str) -> Session:
    """A row with SESSION_COLUMNS (agent_id may be missing)."""
    labels = row["labels"]
    return Session(
        row["session_id"],
        agent_id,
        row["session_name"],
        row["uid"],
        row["user_id"] or "",
        row["head_revision"],
        row["message_count"] or 0,
        row["size_bytes"] or 0,
        texts(labels) if labels else NO_ENTRIES,
        row["create_time"],
        row["update_time"],
        row["last_restore_time"],
        row["delete_time"],
    )


def revision(row: Row, uid: UUID) -> Revision:
    """A row with REVISION_COLUMNS."""
    return Revision(
        revision=row["r_revision"],
        etag=digests.etag(uid, row["r_revision"], row["r_digest"], row["r_state_digest"]),
        parent_revision=row["r_parent_revision"],
        checkpoint_id=row["r_checkpoint_id"] or "",
        message_count=row["r_message_count"],
        size_bytes=row["r_size_bytes"],
        create_time=row["r_create_time"],
        metadata=texts(row["r_metadata"]),
    )


def texts(stored: str | None) -> Mapping[str, str]:
    """A jsonb object of strings; NULL is an empty one."""
    return json.loads(stored) if stored else {}
