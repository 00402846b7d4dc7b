"""SessionStore in memory: as plain as the rules allow. The oracle that PostgreSQL is held against."""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID, uuid4

from session_service.sessions import fragments
from session_service.sessions.errors import (
    BaseRevisionNotFound,
    CheckpointIdExists,
    InvalidField,
    RequestIdReused,
    RevisionMismatch,
    RevisionNotFound,
    SessionDeleted,
    SessionNotDeleted,
    SessionNotFound,
    UserIdMismatch,
)
from session_service.sessions.model import (
    Change,
    Content,
    Delta,
    Download,
    Restored,
    Revision,
    RevisionQuery,
    Save,
    Saved,
    Session,
    SessionKey,
    SessionOrder,
    SessionQuery,
    Target,
    Tenant,
)
from session_service.sessions.store import NameTaken

Name = tuple[str, str, str]


@dataclass
class _Kept:
    session: Session
    revisions: list[Revision] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)
    saves: dict[UUID, tuple[Save, int]] = field(default_factory=dict)


class MemoryStore:
    """Everything in dictionaries; every state whole."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._kept: dict[Name, _Kept] = {}
        self._named: dict[tuple[str, str, UUID], Name] = {}
        self._changes: dict[tuple[Name, str, UUID], tuple[object, int, Session]] = {}
        self._ids = itertools.count(1)

    async def tenant(self, name: str) -> Tenant:
        if name != self._tenant.name:
            raise LookupError(name)
        return self._tenant

    def save_many(self, saves: Sequence[Save], now: datetime) -> Sequence[Awaitable[Saved]]:
        return [self.save(save, now) for save in saves]

    async def save(self, save: Save, now: datetime) -> Saved:
        await asyncio.sleep(0)
        assert save.request_id is not None
        name = (save.tenant.name, save.agent_id, save.session_name)
        if save.server_named:
            name = self._named.get((*name[:2], save.request_id), name)
        kept = self._kept.get(name)
        if kept and (served := kept.saves.get(save.request_id)):
            return self._replayed(kept, save, *served)
        head = kept.session.head_revision if kept else 0
        # What a request says wrongly comes before what the session does not allow; a missing base after it.
        content = self._content(save.content, kept)
        self._check(save, kept, head)
        if content is None:
            raise BaseRevisionNotFound("", "")
        if kept is None:
            kept = self._kept[name] = _Kept(self._new_session(save, now))
            if save.server_named:
                self._named[(*name[:2], save.request_id)] = name
        return self._store(kept, save, content, now)

    async def begin_upload(self, save: Save) -> "_MemoryUpload":
        return _MemoryUpload(self)

    async def download(
        self, change: Change, target: Target, message_limit: int, now: datetime, *, recorded: bool
    ) -> Download:
        if recorded:
            found = await self.restore(change, target, message_limit, now)
        else:
            found = await self.get_revision(change.key, target, with_state=True, message_limit=message_limit)
        return Download(found.session, found.revision, found.state or b"", _nothing_more())

    async def restore(self, change: Change, target: Target, message_limit: int, now: datetime) -> Restored:
        kept = self._find(change.key)
        asked = (target, message_limit, change.client_id)
        place = (_name(change.key), "restore", _id(change))
        if served := self._changes.get(place):
            if served[0] != asked:
                raise RequestIdReused("")
            number = served[1]
        else:
            number = self._number(kept, target)
            if kept.session.delete_time:
                raise SessionDeleted("", "")
            kept.session = kept.session._replace(last_restore_time=now)
            self._changes[place] = (asked, number, kept.session)
        return self._restored(kept, number, message_limit)

    async def delete(self, change: Change, *, purge: bool, now: datetime) -> Session:
        place = (_name(change.key), "delete", _id(change))
        asked = (purge, change.expected_revision, change.client_id)
        if served := self._changes.get(place):
            if served[0] != asked:
                raise RequestIdReused("")
            if purge:
                return served[2]
            return self._find(change.key).session
        kept = self._find(change.key)
        if not purge and kept.session.delete_time:
            raise SessionDeleted("", "")
        self._expect(change.expected_revision, kept.session.head_revision)
        kept.session = kept.session._replace(
            delete_time=(kept.session.delete_time or now) if purge else now,
            update_time=kept.session.update_time if purge else now,
        )
        if purge:
            del self._kept[_name(change.key)]
        self._changes[place] = (asked, kept.session.head_revision, kept.session)
        return kept.session

    async def undelete(self, change: Change, now: datetime) -> Session:
        kept = self._find(change.key)
        place = (_name(change.key), "undelete", _id(change))
        asked = (change.expected_revision, change.client_id)
        if served := self._changes.get(place):
            if served[0] != asked:
                raise RequestIdReused("")
            return kept.session
        self._expect(change.expected_revision, kept.session.head_revision)
        if not kept.session.delete_time:
            raise SessionNotDeleted("")
        kept.session = kept.session._replace(delete_time=None, update_time=now)
        self._changes[place] = (asked, kept.session.head_revision, kept.session)
        return kept.session

    async def get_session(self, key: SessionKey) -> Session:
        return self._find(key).session

    async def get_revision(self, key: SessionKey, target: Target, *, with_state: bool, message_limit: int) -> Restored:
        kept = self._find(key)
        found = self._restored(kept, self._number(kept, target), message_limit)
        return found if with_state else replace(found, pieces=None)

    async def list_sessions(self, query: SessionQuery) -> Sequence[Session]:
        rows = [kept.session for (tenant, agent, _), kept in self._kept.items() if _listed(query, tenant, agent, kept)]
        rows.sort(key=lambda row: _place(query, row), reverse=query.descending)
        if query.after is not None:
            after = query.after
            rows = [r for r in rows if (_place(query, r) < after if query.descending else _place(query, r) > after)]
        return rows[: query.page_size]

    async def list_revisions(self, query: RevisionQuery) -> Sequence[Revision]:
        rows = [r for r in self._find(query.key).revisions if query.metadata.items() <= r.metadata.items()]
        if query.descending:
            rows.reverse()
        if query.after is not None:
            rows = [r for r in rows if (r.revision < query.after if query.descending else r.revision > query.after)]
        return rows[: query.page_size]

    def _check(self, save: Save, kept: _Kept | None, head: int) -> None:
        if save.server_named and kept:
            raise NameTaken
        if kept and kept.session.delete_time:
            raise SessionDeleted("", "")
        self._expect(save.expected_revision, head)
        if kept and save.user_id and kept.session.user_id not in ("", save.user_id):
            raise UserIdMismatch("", "")
        if kept and save.checkpoint_id and any(r.checkpoint_id == save.checkpoint_id for r in kept.revisions):
            raise CheckpointIdExists("")

    def _new_session(self, save: Save, now: datetime) -> Session:
        return Session(
            session_id=next(self._ids),
            agent_id=save.agent_id,
            session_name=save.session_name,
            uid=uuid4(),
            user_id="",
            head_revision=0,
            message_count=0,
            size_bytes=0,
            labels={},
            create_time=now,
            update_time=now,
            last_restore_time=None,
            delete_time=None,
        )

    def _content(self, given: Content | Delta, kept: _Kept | None) -> Content | None:
        """The whole state that a save means; None: its base is missing."""
        if isinstance(given, Content):
            return given
        if given.base_revision == 0:
            if given.truncate_to:
                raise InvalidField("", "")
            if given.base_etag:
                return None
            return Content(given.appended, given.set_values, given.small, b"")
        if kept is None or given.base_revision > len(kept.contents) or given.base_etag not in ("", "right"):
            return None
        base = kept.contents[given.base_revision - 1]
        count = len(base.messages) if given.truncate_to is None else given.truncate_to
        if count > len(base.messages):
            raise InvalidField("", "")
        values = {name: value for name, value in base.values.items() if name not in given.remove_values}
        messages = [*base.messages[:count], *given.appended]
        return Content(messages, values | dict(given.set_values), given.small, base.kept)

    def _store(self, kept: _Kept, save: Save, content: Content, now: datetime) -> Saved:
        number = kept.session.head_revision + 1
        size = len(_state(content, 0))
        base = save.content.base_revision if isinstance(save.content, Delta) else number - 1
        revision = Revision(
            revision=number,
            etag="",
            parent_revision=base,
            checkpoint_id=save.checkpoint_id,
            message_count=len(content.messages),
            size_bytes=size,
            create_time=now,
            metadata=dict(save.metadata),
        )
        kept.revisions.append(revision)
        kept.contents.append(content)
        kept.session = kept.session._replace(
            head_revision=number,
            message_count=revision.message_count,
            size_bytes=size,
            user_id=kept.session.user_id or save.user_id,
            labels=kept.session.labels if save.labels is None else dict(save.labels),
            update_time=now,
        )
        assert save.request_id is not None
        kept.saves[save.request_id] = (save, number)
        return Saved(kept.session, revision, replayed=False)

    def _replayed(self, kept: _Kept, save: Save, first: Save, number: int) -> Saved:
        # A name that the server suggested is not part of the request.
        if save._replace(session_name=first.session_name) != first and save.server_named:
            raise RequestIdReused("")
        if not save.server_named and save != first:
            raise RequestIdReused("")
        return Saved(kept.session, kept.revisions[number - 1], replayed=True)

    def _restored(self, kept: _Kept, number: int, message_limit: int) -> Restored:
        content = kept.contents[number - 1]
        first = max(len(content.messages) - message_limit, 0) if message_limit else 0
        return Restored(kept.session, kept.revisions[number - 1], [_state(content, first)])

    def _find(self, key: SessionKey) -> _Kept:
        if _name(key) not in self._kept:
            raise SessionNotFound("")
        return self._kept[_name(key)]

    def _number(self, kept: _Kept, target: Target) -> int:
        if target.checkpoint_id:
            found = [r.revision for r in kept.revisions if r.checkpoint_id == target.checkpoint_id]
            if not found:
                raise RevisionNotFound("")
            return found[0]
        number = target.revision or kept.session.head_revision
        if number > len(kept.revisions):
            raise RevisionNotFound("")
        return number

    def _expect(self, expected: int | None, head: int) -> None:
        if expected is not None and expected != head:
            raise RevisionMismatch("", {"current_revision": str(head)})


class _MemoryUpload:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._messages: list[bytes] = []

    async def add(self, messages: Sequence[bytes]) -> None:
        self._messages += messages

    async def finish(self, save: Save, now: datetime) -> Saved:
        assert isinstance(save.content, Content)
        content = save.content._replace(messages=self._messages)
        return await self._store.save(save._replace(content=content), now)


async def _nothing_more() -> AsyncGenerator[bytes, None]:
    none: tuple[bytes, ...] = ()
    for part in none:
        yield part


def _state(content: Content, first: int) -> bytes:
    return b"".join((content.small, content.kept, *content.values.values(), fragments.join(content.messages[first:])))


def _listed(query: SessionQuery, tenant: str, agent: str, kept: _Kept) -> bool:
    row = kept.session
    return (
        tenant == query.tenant.name
        and query.agent_id in ("", agent)
        and query.user_id in ("", row.user_id)
        and query.labels.items() <= row.labels.items()
        and row.session_name.startswith(query.name_prefix)
        and (query.show_deleted or row.delete_time is None)
    )


def _place(query: SessionQuery, row: Session) -> tuple[datetime | str, int]:
    keys = {
        SessionOrder.CREATE_TIME: row.create_time,
        SessionOrder.UPDATE_TIME: row.update_time,
        SessionOrder.NAME: row.session_name,
    }
    key = keys[query.order]
    assert key is not None
    return key, row.session_id


def _name(key: SessionKey) -> Name:
    return key.tenant.name, key.agent_id, key.session_name


def _id(change: Change) -> UUID:
    assert change.request_id is not None
    return change.request_id
