"""The write batcher on a real PostgreSQL: what one operation does to those that are flushed with it."""

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from session_service.postgres import write_batcher
from session_service.postgres.session_store import PostgresSessionStore
from session_service.sessions.model import Change, Save, SessionKey, Target, Tenant

from tests.integration.test_storage import NOW
from tests.model.stores import content, postgres_store


def save(tenant: Tenant, name: str) -> Save:
    return Save(tenant, "ada", name, content([name]), "test", request_id=uuid4())


def all_queued(store: PostgresSessionStore, count: int) -> "asyncio.Future[None]":
    """Done when so many operations wait in the batcher's queue together."""
    queued: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    submit = store._batcher.submit

    def counting(operation: Any) -> Any:
        result = submit(operation)
        if len(store._batcher._queue) == count:
            queued.set_result(None)
        return result

    store._batcher.submit = counting  # type: ignore[method-assign]
    return queued


async def test_one_bad_save_harms_no_neighbour(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a", "b", "bad", "c", "d"]
    async with postgres_store(database_url, flushing=False) as (store, tenant):
        flushed: list[int] = []
        monkeypatch.setattr(store._batcher._observer, "flushed", lambda saves, _: flushed.append(saves))
        queued = all_queued(store, len(names))
        saves = [save(tenant, name) for name in names]
        # PostgreSQL refuses a NUL in a text with an error that fails the whole batch. The API refuses it before.
        saves[2] = saves[2]._replace(checkpoint_id="\x00")
        tasks = [asyncio.ensure_future(store.save(one, NOW)) for one in saves]
        await queued
        await store._batcher.start()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        refused = {name for name, result in zip(names, results, strict=True) if isinstance(result, BaseException)}
        assert refused == {"bad"}
        assert flushed == [1, 1, 1, 1]  # they were together, and then each by itself
        for name in set(names) - refused:
            found = await store.get_revision(
                SessionKey(tenant, "ada", name), Target(), with_state=True, message_limit=0
            )
            assert found.revision.revision == 1


async def test_a_cancelled_caller_cancels_no_other_and_its_own_save_may_be_stored(database_url: str) -> None:
    async with postgres_store(database_url, flushing=False) as (store, tenant):
        queued = all_queued(store, 10)
        tasks = [asyncio.ensure_future(store.save(save(tenant, f"s{n}"), NOW)) for n in range(10)]
        await queued
        tasks[3].cancel()
        await store._batcher.start()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [n for n, result in enumerate(results) if isinstance(result, BaseException)] == [3]
        assert isinstance(results[3], asyncio.CancelledError)


async def test_closing_flushes_what_waits(database_url: str) -> None:
    async with postgres_store(database_url, flushing=False) as (store, tenant):
        queued = all_queued(store, 10)
        tasks = [asyncio.ensure_future(store.save(save(tenant, f"s{n}"), NOW)) for n in range(10)]
        await queued
        await store._batcher.start()
        await store._batcher.close()
        saved = await asyncio.gather(*tasks)
        assert {one.revision.revision for one in saved} == {1}


async def test_a_mistake_in_a_flush_ends_no_later_one(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with postgres_store(database_url) as (store, tenant):
        with monkeypatch.context() as patched:
            patched.setattr(write_batcher, "execute", _answers_nothing)
            with pytest.raises(RuntimeError, match="a flush failed"):
                await store.save(save(tenant, "a"), NOW)
        assert (await store.save(save(tenant, "b"), NOW)).revision.revision == 1


async def _answers_nothing(*_: object, **__: object) -> list[asyncpg.Record]:
    return []


async def test_a_caller_is_answered_before_the_log_is_read(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads it is woken then, and would keep the event loop from the caller."""
    async with postgres_store(database_url) as (store, tenant):
        answered: list[bool] = []
        submit = store._batcher.submit_to

        def noting(outcome: Any, operation: Any) -> None:
            monkeypatch.setattr(store._database, "on_event", lambda _: answered.append(outcome.done()))
            submit(outcome, operation)

        monkeypatch.setattr(store._batcher, "submit_to", noting)
        key = SessionKey(tenant, "ada", "a")
        await store.save(save(tenant, "a"), NOW)
        await store.restore(Change(key, "test", uuid4()), Target(), 0, NOW)
        assert answered == [True, True]
