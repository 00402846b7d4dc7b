"""Pages of sessions and of revisions, by keyset: a page costs the same however deep it lies."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from session_service.postgres import rows
from session_service.postgres.states import Fetch, session_not_found
from session_service.sessions import placement
from session_service.sessions.model import (
    Revision,
    RevisionQuery,
    Session,
    SessionKey,
    SessionOrder,
    SessionQuery,
)

_SORT_KEYS = {
    SessionOrder.CREATE_TIME: ("s.create_time", "timestamptz"),
    SessionOrder.UPDATE_TIME: ("s.update_time", "timestamptz"),
    SessionOrder.NAME: ("s.session_name", "text"),
}

# $1 tenant, $2 how many, $3 user_id or NULL, $4 labels or NULL, $5 prefix or NULL;
# then, where they apply, the agent ({scope}) and the last row of the page before ({after}).
SESSIONS = """
    SELECT {columns} FROM sessions AS s
    WHERE s.tenant_id = $1 {scope} {after}
        AND ($3::text IS NULL OR s.user_id = $3)
        AND ($4::jsonb IS NULL OR s.labels @> $4)
        AND ($5::text IS NULL OR starts_with(s.session_name, $5))
        {live}
    ORDER BY {key} {direction}, s.session_id {direction}
    LIMIT $2
"""
AGENT_SCOPE = "AND s.bucket = $6 AND s.agent_id = $7"
LIVE = "AND s.delete_time IS NULL"

# $1 bucket, $2 tenant, $3 agent, $4 session
FIND = """
    SELECT {columns} FROM sessions AS s
    WHERE s.bucket = $1 AND s.tenant_id = $2 AND s.agent_id = $3 AND s.session_name = $4
"""

# $1 bucket, $2 tenant, $3 session_id, $4 how many, $5 metadata or NULL, $6 after this number or NULL
REVISIONS = """
    SELECT {columns} FROM revisions AS r
    WHERE r.bucket = $1 AND r.tenant_id = $2 AND r.session_id = $3
        AND r.revision {comparison} coalesce($6::bigint, {beginning})
        AND ($5::jsonb IS NULL OR r.metadata @> $5)
    ORDER BY r.revision {direction}
    LIMIT $4
"""
FIND_SESSION = FIND.format(columns=rows.SESSION_COLUMNS)
REVISIONS_UP = REVISIONS.format(columns=rows.REVISION_COLUMNS, comparison=">", beginning="0", direction="ASC")
REVISIONS_DOWN = REVISIONS.format(
    columns=rows.REVISION_COLUMNS, comparison="<", beginning="9223372036854775807", direction="DESC"
)


async def sessions(fetch: Fetch, query: SessionQuery) -> Sequence[Session]:
    """At most query.page_size sessions after query.after."""
    statement, arguments = _session_statement(query)
    return [rows.session(row, row["agent_id"]) for row in await fetch(statement, *arguments)]


async def session(fetch: Fetch, key: SessionKey) -> Session:
    """The session. Raises: SessionNotFound."""
    return rows.session(await _find(fetch, key), key.agent_id)


async def revisions(fetch: Fetch, query: RevisionQuery) -> Sequence[Revision]:
    """At most query.page_size revisions after query.after. Raises: SessionNotFound."""
    found = await _find(fetch, query.key)
    listed = await fetch(
        REVISIONS_DOWN if query.descending else REVISIONS_UP,
        *_scope(query.key),
        found["session_id"],
        query.page_size,
        _contains(query.metadata),
        query.after,
    )
    return [rows.revision(row, found["uid"]) for row in listed]


async def _find(fetch: Fetch, key: SessionKey) -> asyncpg.Record:
    found = await fetch(FIND_SESSION, *_scope(key), key.agent_id, key.session_name)
    if not found:
        raise session_not_found(key)
    return found[0]


def _scope(key: SessionKey) -> tuple[int, int]:
    return placement.bucket_of(key.tenant, key.agent_id), key.tenant.tenant_id


def _session_statement(query: SessionQuery) -> tuple[str, list[Any]]:
    """Four shapes for each order: only one that names its columns plainly goes by index."""
    key, kind = _SORT_KEYS[query.order]
    arguments: list[Any] = [
        query.tenant.tenant_id,
        query.page_size,
        query.user_id or None,
        _contains(query.labels),
        query.name_prefix or None,
    ]
    scope = after = ""
    if query.agent_id:
        scope = AGENT_SCOPE
        arguments += [placement.bucket_of(query.tenant, query.agent_id), query.agent_id]
    if query.after is not None:
        place = len(arguments)
        comparison = "<" if query.descending else ">"
        after = f"AND ({key}, s.session_id) {comparison} (${place + 1}::{kind}, ${place + 2}::bigint)"
        arguments += query.after
    statement = SESSIONS.format(
        columns=rows.SESSION_COLUMNS,
        scope=scope,
        after=after,
        live="" if query.show_deleted else LIVE,
        key=key,
        direction="DESC" if query.descending else "ASC",
    )
    return statement, arguments


def _contains(wanted: Mapping[str, str]) -> str | None:
    return json.dumps(dict(wanted)) if wanted else None
