"""LangGraph's checkpointer for PostgreSQL: AsyncPostgresSaver.aput with the whole state."""

from collections.abc import Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.base.id import uuid6
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Access, Description, key, package_versions

CHANNEL = "messages"


class LangGraphStore:
    """A checkpoint per message, as the graph's loop writes them: the messages channel is a blob of its own."""

    def __init__(self) -> None:
        self._configs: dict[str, RunnableConfig] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="LangGraph AsyncPostgresSaver",
            version=package_versions("langgraph", "langgraph-checkpoint-postgres", "psycopg"),
            setup=f"AsyncConnectionPool of {CONNECTIONS} (autocommit, prepare_threshold=0, dict_row); aput per message",
            keeps="every checkpoint with the whole message list",
        )

    async def prepare(self, dsn: str) -> None:
        """Let the saver make its tables."""
        async with AsyncPostgresSaver.from_conn_string(dsn) as saver:
            await saver.setup()

    async def open(self, access: Access) -> None:
        """Open the pool and the saver."""
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            access.dsn,
            min_size=CONNECTIONS,
            max_size=CONNECTIONS,
            open=False,
            kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
        )
        await self._pool.open(wait=True)
        self._saver = AsyncPostgresSaver(self._pool)

    async def save(self, conversation: Conversation, index: int) -> None:
        """Put a checkpoint whose parent is the one before."""
        name = key(conversation)
        config = self._configs.get(name) or thread(name)
        version = self._saver.get_next_version(_version(index), None)
        checkpoint: Any = empty_checkpoint() | {
            "id": str(uuid6(clock_seq=index)),
            "channel_values": {CHANNEL: [message.value for message in conversation.messages[: index + 1]]},
            "channel_versions": {CHANNEL: version},
        }
        metadata: Any = {"source": "loop", "step": index, "parents": {}}
        self._configs[name] = await self._saver.aput(config, checkpoint, metadata, {CHANNEL: version})

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Get the newest checkpoint."""
        found = await self._saver.aget_tuple(thread(key(conversation)))
        assert found is not None
        messages: Sequence[Any] = found.checkpoint["channel_values"][CHANNEL]
        return messages

    async def close(self) -> None:
        """Close the pool."""
        await self._pool.close()


def thread(name: str) -> RunnableConfig:
    """Return the configuration of a thread's newest checkpoint."""
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


def _version(index: int) -> str | None:
    """Return a version of the form that the saver gives; it counts the integer part up."""
    return f"{index:032}.0" if index else None
