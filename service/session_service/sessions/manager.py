"""The use cases. Each is one call of the store, with what the rules add around it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from session_service.sessions import naming
from session_service.sessions.model import (
    Change,
    Download,
    Restored,
    Revision,
    RevisionQuery,
    Save,
    Saved,
    Session,
    SessionKey,
    SessionQuery,
    Target,
    Tenant,
)
from session_service.sessions.store import NameTaken, SessionStore


def utc_now() -> datetime:
    """The server's time: every time that it sets comes from here."""
    return datetime.now(UTC)


class SessionManager:
    """What a caller can do with sessions."""

    def __init__(self, store: SessionStore, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    async def tenant(self, name: str) -> Tenant:
        """The tenant of that name. Raises: LookupError if there is none."""
        return await self._store.tenant(name)

    def save(self, save: Save) -> Awaitable[Saved]:
        """Stores a revision; names the session if the caller did not. To be awaited.

        Raises, when awaited: what SessionStore.save raises, but for NameTaken.
        """
        return self.save_many((save,))[0]

    def save_many(self, saves: Sequence[Save]) -> Sequence[Awaitable[Saved]]:
        """Begins many saves, in this order; each then ends by itself, as by save()."""
        now = self._clock()
        # Every save carries an id, so that the store can repeat one whose
        # connection broke before the answer, without storing it twice.
        saves = [save if save.request_id else save._replace(request_id=uuid4()) for save in saves]
        begun = iter(self._store.save_many([save for save in saves if save.session_name], now))
        return [next(begun) if save.session_name else self._save_named(save, now) for save in saves]

    async def upload(self, save: Save, batches: AsyncIterator[Sequence[bytes]]) -> Saved:
        """Stores a revision whose messages, encoded, come in batches; save.content has all the rest.

        Raises: what SessionStore.save raises, but for NameTaken; what `batches` raises: then nothing is stored.
        """
        upload = await self._store.begin_upload(save)
        async for messages in batches:
            await upload.add(messages)
            del messages  # not kept while the next ones are waited for
        now = self._clock()
        save = save if save.request_id else save._replace(request_id=uuid4())
        if save.session_name:
            return await upload.finish(save, now)
        return await self._named(save, now, upload.finish)

    async def restore(self, change: Change, target: Target, message_limit: int) -> Restored:
        """The state of a revision, recorded as restored. Raises: what SessionStore.restore raises."""
        return await self._store.restore(_identified(change), target, message_limit, self._clock())

    async def download(self, change: Change, target: Target, message_limit: int, *, recorded: bool) -> Download:
        """The state of a revision piece by piece. Raises: what SessionStore.download raises."""
        change = _identified(change)
        return await self._store.download(change, target, message_limit, self._clock(), recorded=recorded)

    async def delete(self, change: Change, *, purge: bool) -> Session:
        """Hides a session, or removes it for good. Raises: what SessionStore.delete raises."""
        return await self._store.delete(_identified(change), purge=purge, now=self._clock())

    async def undelete(self, change: Change) -> Session:
        """Brings a hidden session back. Raises: what SessionStore.undelete raises."""
        return await self._store.undelete(_identified(change), self._clock())

    async def get_session(self, key: SessionKey) -> Session:
        """A session. Raises: SessionNotFound."""
        return await self._store.get_session(key)

    async def get_revision(self, key: SessionKey, target: Target, *, with_state: bool, message_limit: int) -> Restored:
        """A revision. Raises: SessionNotFound, RevisionNotFound, StateTooLarge, CorruptData."""
        return await self._store.get_revision(key, target, with_state=with_state, message_limit=message_limit)

    async def list_sessions(self, query: SessionQuery) -> tuple[Sequence[Session], bool]:
        """A page of sessions, and whether there are more."""
        found = await self._store.list_sessions(replace(query, page_size=query.page_size + 1))
        return found[: query.page_size], len(found) > query.page_size

    async def list_revisions(self, query: RevisionQuery) -> tuple[Sequence[Revision], bool]:
        """A page of revisions, and whether there are more. Raises: SessionNotFound."""
        found = await self._store.list_revisions(replace(query, page_size=query.page_size + 1))
        return found[: query.page_size], len(found) > query.page_size

    async def _save_named(self, save: Save, now: datetime) -> Saved:
        return await self._named(save, now, self._store.save)

    async def _named(self, save: Save, now: datetime, store: Callable[[Save, datetime], Awaitable[Saved]]) -> Saved:
        for name in naming.suggestions(now):
            try:
                return await store(save._replace(session_name=name, server_named=True), now)
            except NameTaken:
                continue
        raise AssertionError("suggestions never end")


def _identified(change: Change) -> Change:
    return change if change.request_id else replace(change, request_id=uuid4())
