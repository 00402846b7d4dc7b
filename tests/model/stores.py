"""A PostgreSQL store for one tenant of its own, and contents to put into it."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from agent_sessions.v1.session_pb2 import AgentState, LoopState, Message, Payload, StateDelta
from session_service.api.states import take_apart, take_delta_apart
from session_service.postgres.pool import Database
from session_service.postgres.session_store import PostgresSessionStore
from session_service.postgres.write_batcher import WriteBatcher
from session_service.sessions.errors import SessionServiceError
from session_service.sessions.model import Content, Delta, Restored, Revision, Saved, Session, Tenant
from session_service.sessions.store import NameTaken

from tests.fixtures.postgres import ROLE

NEW_TENANT = """
INSERT INTO tenants (name, digest_secret, create_time) VALUES ($1, $2, now())
"""


@asynccontextmanager
async def postgres_store(
    database_url: str, *, flushing: bool = True, **settings: Any
) -> AsyncIterator[tuple[PostgresSessionStore, Tenant]]:
    """A store with a tenant that nobody used before; flushing: False leaves it to the test to start its batcher."""
    name = f"tenant-{uuid.uuid4().hex}"
    owner = await asyncpg.connect(database_url)
    try:
        await owner.execute(NEW_TENANT, name, uuid.uuid4().bytes)
    finally:
        await owner.close()
    database = await Database.connect(database_url, role=ROLE, pool_size=4)
    batcher = WriteBatcher(database)
    if flushing:
        await batcher.start()
    try:
        store = PostgresSessionStore(database, batcher, **settings)
        yield store, await store.tenant(name)
    finally:
        await batcher.close()
        await database.close()


def content(texts: Sequence[str], values: Mapping[str, str] | None = None, provider: str = "") -> Content:
    """A real state, taken apart as the RPC boundary does it."""
    state = AgentState(
        message_history=[Message(text=text) for text in texts],
        loop_state=LoopState.LOOP_STATE_THINKING,
        llm_provider=provider,
        values={name: Payload(content_type="text/plain", data=text.encode()) for name, text in (values or {}).items()},
    )
    return take_apart(state, "any")


def delta(
    base: int,
    texts: Sequence[str],
    *,
    truncate_to: int | None = None,
    values: Mapping[str, str] | None = None,
    remove: Sequence[str] = (),
    provider: str = "",
) -> Delta:
    """A real delta, taken apart as the RPC boundary does it."""
    given = StateDelta(
        base_revision=base,
        appended_messages=[Message(text=text) for text in texts],
        loop_state=LoopState.LOOP_STATE_THINKING,
        llm_provider=provider,
        set_values={
            name: Payload(content_type="text/plain", data=text.encode()) for name, text in (values or {}).items()
        },
        remove_values=remove,
    )
    if truncate_to is not None:
        given.truncate_to = truncate_to
    return take_delta_apart(given)


def comparable(result: Any) -> Any:
    """What every store must agree on: all but the ids that a store chooses."""
    match result:
        case Session():
            return result._replace(session_id=0, uid=None)
        case Revision():
            return result._replace(etag="", metadata=dict(result.metadata))
        case Saved():
            return comparable(result.session), comparable(result.revision), result.replayed
        case Restored():
            state = None if result.state is None else AgentState.FromString(result.state)
            return comparable(result.session), comparable(result.revision), state
        case list() | tuple():
            return [comparable(item) for item in result]
    return result


def run_now(work: Callable[[], Any], runner: asyncio.Runner) -> Any:
    """The result, or the class of the refusal."""

    async def run() -> Any:
        return await work()

    try:
        return comparable(runner.run(run()))
    except (SessionServiceError, NameTaken) as error:
        return type(error)
