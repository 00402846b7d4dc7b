"""What many programs do: one row per session, overwritten with the whole state."""

import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Access, Description, key, package_versions

SCHEMA = "CREATE TABLE sessions (name text PRIMARY KEY, state text NOT NULL, update_time timestamptz NOT NULL)"
FIRST = "INSERT INTO sessions (name, state, update_time) VALUES ($1, $2, now())"
NEXT = "UPDATE sessions SET state = $2, update_time = now() WHERE name = $1"
RESTORE = "SELECT state FROM sessions WHERE name = $1"


class OverwriteStore:
    """The whole state as text, at every save."""

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="overwrite one row",
            version=package_versions("asyncpg"),
            setup=f"asyncpg pool of {CONNECTIONS}; UPDATE one row with the whole state as text",
            keeps="the newest state only",
        )

    async def prepare(self, dsn: str) -> None:
        """Make the table."""
        connection = await asyncpg.connect(dsn)
        await connection.execute(SCHEMA)
        await connection.close()

    async def open(self, access: Access) -> None:
        """Open the pool."""
        self._pool = await asyncpg.create_pool(access.dsn, min_size=CONNECTIONS, max_size=CONNECTIONS)

    async def save(self, conversation: Conversation, index: int) -> None:
        """Write everything anew."""
        state = "[" + ",".join(message.text for message in conversation.messages[: index + 1]) + "]"
        await self._pool.execute(NEXT if index else FIRST, key(conversation), state)

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Read the row."""
        messages: list[Any] = json.loads(await self._pool.fetchval(RESTORE, key(conversation)))
        return messages

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()
