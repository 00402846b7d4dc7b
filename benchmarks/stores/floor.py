"""What PostgreSQL can do: one statement that inserts the new message and updates the session's row."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Access, Description, key, package_versions

SCHEMA = """
CREATE TABLE sessions (
    session_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    message_count integer NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE TABLE messages (
    session_id bigint NOT NULL,
    position integer NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (session_id, position)
);
"""
FIRST = """
WITH session AS (
    INSERT INTO sessions (name, message_count, update_time) VALUES ($1, $2 + 1, now()) RETURNING session_id
)
INSERT INTO messages (session_id, position, data) SELECT session_id, $2, $3 FROM session RETURNING session_id
"""
NEXT = """
WITH message AS (INSERT INTO messages (session_id, position, data) VALUES ($1, $2, $3))
UPDATE sessions SET message_count = $2 + 1, update_time = now() WHERE session_id = $1
"""
RESTORE = """
SELECT data FROM messages JOIN sessions USING (session_id) WHERE name = $1 ORDER BY position
"""


class FloorStore:
    """No service, no revisions, no events, no checks."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="floor",
            version=package_versions("asyncpg"),
            setup=f"asyncpg pool of {CONNECTIONS}; INSERT the new message and UPDATE the session in one statement",
            keeps="the messages; no revisions, no events, no request ids",
        )

    async def prepare(self, dsn: str) -> None:
        """Make two tables."""
        connection = await asyncpg.connect(dsn)
        await connection.execute(SCHEMA)
        await connection.close()

    async def open(self, access: Access) -> None:
        """Open the pool."""
        self._pool = await asyncpg.create_pool(access.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)

    async def save(self, conversation: Conversation, index: int) -> None:
        """Insert one message; the first makes the session, too."""
        name, data = key(conversation), conversation.messages[index].data
        if index == 0:
            self._ids[name] = await self._pool.fetchval(FIRST, name, index, data)
        else:
            await self._pool.execute(NEXT, self._ids[name], index, data)

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Read all messages."""
        rows = await self._pool.fetch(RESTORE, key(conversation))
        return [json.loads(row["data"]) for row in rows]

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()
