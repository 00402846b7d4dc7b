"""Plans that were made for a head that is no more."""

from typing import Any
from uuid import uuid4

import pytest
from session_service.sessions.model import Change, Save, SessionKey, Target

from tests.integration.test_storage import NOW
from tests.model.stores import content, postgres_store


async def test_a_session_that_took_the_name_is_not_taken_for_the_old_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with postgres_store(database_url) as (store, tenant), postgres_store(database_url) as (other, _):
        save = Save(tenant, "ada", "s", content(["old", "and"]), "test", request_id=uuid4())
        first = await store.save(save, NOW)

        # Between the plan of the next save and its flush, the session is purged and made again.
        submit = store._batcher.submit
        interfered = False

        async def interfering(operation: Any) -> Any:
            nonlocal interfered
            if not interfered:
                interfered = True
                key = Change(_key(save), "test", uuid4())
                await other.delete(key, purge=True, now=NOW)
                await other.save(save._replace(content=content(["new"]), request_id=uuid4()), NOW)
            return await submit(operation)

        monkeypatch.setattr(store._batcher, "submit", interfering)
        extended = content(["old", "and", "more"])
        second = await store.save(save._replace(content=extended, request_id=uuid4()), NOW)

        assert interfered
        assert second.session.uid != first.session.uid
        found = await store.get_revision(_key(save), Target(), with_state=True, message_limit=0)
        assert found.state is not None
        assert all(text in found.state for text in (b"old", b"and", b"more"))


def _key(save: Save) -> SessionKey:
    return SessionKey(save.tenant, save.agent_id, save.session_name)


async def test_a_restore_does_not_give_back_what_was_purged(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with postgres_store(database_url) as (store, tenant), postgres_store(database_url) as (other, _):
        save = Save(tenant, "ada", "s", content(["old"]), "test", request_id=uuid4())
        for _ in range(3):
            await store.save(save._replace(request_id=uuid4()), NOW)

        # Between the read of a restore and its event, the session is purged and made again.
        submit = store._batcher.submit
        interfered = False

        async def interfering(operation: Any) -> Any:
            nonlocal interfered
            if not interfered:
                interfered = True
                await other.delete(Change(_key(save), "test", uuid4()), purge=True, now=NOW)
                await other.save(save._replace(content=content(["new"]), request_id=uuid4()), NOW)
            return await submit(operation)

        monkeypatch.setattr(store._batcher, "submit", interfering)
        found = await store.restore(Change(_key(save), "test", uuid4()), Target(), 0, NOW)

        assert interfered
        assert found.revision.revision == found.session.head_revision == 1
        assert found.state is not None
        assert b"new" in found.state
        assert b"old" not in found.state
