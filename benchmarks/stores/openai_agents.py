"""openai-agents: SQLAlchemySession.add_items on PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Access, Description, key, package_versions, sqlalchemy_url


class OpenAiAgentsStore:
    """An item per message; one engine for all sessions of the process."""

    def __init__(self) -> None:
        self._sessions: dict[str, SQLAlchemySession] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="openai-agents SQLAlchemySession",
            version=package_versions("openai-agents", "sqlalchemy", "asyncpg"),
            setup=f"postgresql+asyncpg, one engine with a pool of {CONNECTIONS}; add_items per message",
            keeps="every item; no revisions",
        )

    async def prepare(self, dsn: str) -> None:
        """Let a session make the tables."""
        engine = create_async_engine(sqlalchemy_url(dsn))
        await SQLAlchemySession("first", engine=engine, create_tables=True).get_items()
        await engine.dispose()

    async def open(self, access: Access) -> None:
        """Make the engine."""
        self._engine = create_async_engine(sqlalchemy_url(access.dsn), pool_size=CONNECTIONS, max_overflow=0)

    async def save(self, conversation: Conversation, index: int) -> None:
        """Add the message."""
        session = self._session(conversation)
        item: Any = conversation.messages[index].value
        await session.add_items([item])

    def _session(self, conversation: Conversation) -> SQLAlchemySession:
        name = key(conversation)
        if name not in self._sessions:
            self._sessions[name] = SQLAlchemySession(name, engine=self._engine)
        return self._sessions[name]

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Get all items, through a session object that has none in memory."""
        items: Sequence[Any] = await SQLAlchemySession(key(conversation), engine=self._engine).get_items()
        return items

    async def close(self) -> None:
        """Dispose of the engine."""
        await self._engine.dispose()
