"""google-adk: DatabaseSessionService.append_event."""

import json
from collections.abc import Sequence
from typing import Any

from google.adk.events import Event
from google.adk.sessions import DatabaseSessionService, Session
from google.genai import types

from benchmarks.corpus import Conversation
from benchmarks.stores.base import CONNECTIONS, Access, Description, package_versions, sqlalchemy_url

USER = "user"


class GoogleAdkStore:
    """An event per message; the session object is kept between events, as a runner keeps it."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], Session] = {}

    def describe(self) -> Description:
        """Tell what this is."""
        return Description(
            title="google-adk DatabaseSessionService",
            version=package_versions("google-adk", "sqlalchemy", "asyncpg"),
            setup=f"postgresql+asyncpg, pool of {CONNECTIONS}, its default pool_pre_ping; append_event per message",
            keeps="every event; no revisions",
        )

    async def prepare(self, dsn: str) -> None:
        """Let the service make its tables."""
        service = DatabaseSessionService(sqlalchemy_url(dsn))
        await service.prepare_tables()
        await service.close()

    async def open(self, access: Access) -> None:
        """Open the service."""
        self._service = DatabaseSessionService(sqlalchemy_url(access.dsn), pool_size=CONNECTIONS, max_overflow=0)
        await self._service.prepare_tables()

    async def save(self, conversation: Conversation, index: int) -> None:
        """Append the message's text as the content of an event."""
        name = (conversation.agent_id, conversation.session_name)
        if index == 0:
            self._sessions[name] = await self._service.create_session(
                app_name=conversation.agent_id, user_id=USER, session_id=conversation.session_name
            )
        part = types.Part(text=conversation.messages[index].text)
        event = Event(invocation_id="run", author="agent", content=types.Content(role="model", parts=[part]))
        await self._service.append_event(self._sessions[name], event)

    async def restore(self, conversation: Conversation) -> Sequence[Any]:
        """Get the session with all its events."""
        session = await self._service.get_session(
            app_name=conversation.agent_id, user_id=USER, session_id=conversation.session_name
        )
        assert session is not None
        events: Sequence[Any] = session.events
        return [json.loads(event.content.parts[0].text) for event in events]

    async def close(self) -> None:
        """Close the service's engine."""
        await self._service.close()
