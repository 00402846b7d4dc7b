"""What PostgreSQL reads for the statement by which the service reads a revision, by table and index."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
from session_service.postgres import states
from session_service.postgres.pool import Database
from session_service.sessions.model import SessionKey, Target, Tenant

from benchmarks.stores.ours import ROLE

TENANT = "SELECT tenant_id, name, digest_secret FROM tenants WHERE name = 'default'"
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
TOTAL = "all"


async def read(dsn: str, agent_id: str, session_name: str, message_limit: int) -> dict[str, list[int]]:
    """Let the service's own code read a session, and explain the statement that it runs."""
    database = await Database.connect(dsn, role=ROLE)
    found: dict[str, list[int]] = {}

    async def explained(query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        rows = await database.fetch(EXPLAIN + query, *arguments)
        found.update(scans(json.loads(rows[0][0])[0]["Plan"]))
        return await database.fetch(query, *arguments)

    try:
        tenant = Tenant(**(await database.fetchrow(TENANT) or {}))
        await states.read(explained, SessionKey(tenant, agent_id, session_name), Target(), message_limit)
    finally:
        await database.close()
    return found


def scans(plan: dict[str, Any]) -> dict[str, list[int]]:
    """Return rows and buffers of each table and index that a plan scans, and of the whole."""
    found: dict[str, list[int]] = {}
    for node in _nodes(plan):
        name = " by ".join(node[key] for key in ("Relation Name", "Index Name") if key in node)
        if name:
            entry = found.setdefault(name, [0, 0])
            entry[0] += round(node["Actual Rows"] * node["Actual Loops"])
            entry[1] += _buffers(node) - sum(_buffers(child) for child in node.get("Plans", ()))
    return found | {TOTAL: [round(plan["Actual Rows"]), _buffers(plan)]}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def _buffers(node: dict[str, Any]) -> int:
    """Return pages of tables and indexes, wherever they were found; a node's contain its children's."""
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])
