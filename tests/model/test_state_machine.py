"""Random histories: PostgreSQL and the store in memory must agree on every answer.

Snapshots grow, shrink, are edited in the middle and begin anew; old revisions
are restored; requests are repeated; sessions are deleted, undeleted and purged. In
between, PostgreSQL's messages are packed and what nothing needs is collected, step
by step; packers, collectors and uploads die in the middle. No answer may show it.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from session_service.postgres import downloads
from session_service.postgres.cold_sessions import Rests
from session_service.postgres.collector import Collector
from session_service.postgres.packer import Packer
from session_service.sessions import transcript
from session_service.sessions.model import (
    Change,
    Content,
    Restored,
    RevisionQuery,
    Save,
    Saved,
    SessionKey,
    SessionOrder,
    SessionQuery,
    Target,
)
from session_service.sessions.placement import bucket_of
from session_service.sessions.store import SessionStore, Upload

from tests.fixtures.collecting import AT_ONCE, collect_all, orphans, wrong_rows
from tests.fixtures.figures import Tell
from tests.fixtures.packing import Heard
from tests.model.memory_store import MemoryStore
from tests.model.stores import content, delta, postgres_store, run_now

AGENTS = st.sampled_from(["ada", "bob"])
NAMES = st.sampled_from(["one", "two"])
# Few different texts, some beyond the threshold of compression, make common beginnings likely.
TEXTS = st.sampled_from(["a", "b", "c" * 2000, ""])
VALUES = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["small", "big" * 700]), max_size=2)
STEPS, EXAMPLES = 30, 100
COLLECTOR = uuid4()
"""Of all examples, so that none waits until another's turn is over."""
EXPIRE = "UPDATE transcripts SET upload_deadline = now() - interval '2 minutes' WHERE upload_deadline IS NOT NULL"
WALK_THERE = "UPDATE collection_state SET walk_bucket = $1, next_walk = '-infinity'"
SEEN: Counter[str] = Counter()
PACKED: list[int] = []
"""Messages, each time."""
REFUSALS = {
    "BaseRevisionNotFound",
    "CheckpointIdExists",
    "InvalidField",
    "NameTaken",
    "RequestIdReused",
    "RevisionMismatch",
    "RevisionNotFound",
    "SessionDeleted",
    "SessionNotDeleted",
    "SessionNotFound",
    "UserIdMismatch",
}
"""All that a store in order can answer instead of a result."""


class StoresAgree(RuleBasedStateMachine):
    database_url = ""

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._store, self._tenant = self._runner.run(self._stack.enter_async_context(postgres_store(self.database_url)))
        self._oracle = MemoryStore(self._tenant)
        self._collector = self._new_collector()
        self._now = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
        self._texts: dict[tuple[str, str], list[str]] = {}
        self._last_save: Save | None = None
        self._last_change: tuple[str, Change] | None = None

    def _new_collector(self) -> Collector:
        collector = Collector(self._store._database, keep=AT_ONCE, walk_every=AT_ONCE)
        collector._id = COLLECTOR
        return collector

    def teardown(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    @rule(
        agent=AGENTS,
        name=NAMES,
        kept=st.integers(0, 12),
        added=st.lists(TEXTS, max_size=4),
        values=VALUES,
        expected=st.sampled_from([None, None, "right", "wrong", "zero"]),
        checkpoint=st.sampled_from(["", "", "k1", "k2"]),
        user=st.sampled_from(["", "", "u1", "u2"]),
        labels=st.sampled_from([None, {}, {"k": "v"}]),
        self_contained=st.booleans(),
    )
    def save(self, agent, name, kept, added, values, expected, checkpoint, user, labels, self_contained):
        texts = [*self._texts.get((agent, name), [])[: max(kept - 2, 0)], *added]
        head = self._head(agent, name)
        numbers = {None: None, "right": head, "wrong": head + 1, "zero": 0}
        save = Save(
            tenant=self._tenant,
            agent_id=agent,
            session_name=name,
            content=content(texts, values, provider=checkpoint),
            actor="test",
            expected_revision=numbers[expected],
            request_id=uuid4(),
            checkpoint_id=checkpoint,
            user_id=user,
            labels=labels,
            metadata={"kind": checkpoint} if checkpoint else {},
            self_contained=self_contained,
        )
        self._texts[agent, name] = texts
        self._both_save(save)

    @rule(agent=AGENTS, name=NAMES, added=st.lists(TEXTS, min_size=1, max_size=2))
    def append(self, agent, name, added):
        texts = [*self._texts.get((agent, name), []), *added]
        self._texts[agent, name] = texts
        self._both_save(
            Save(self._tenant, agent, name, content(texts), "test", request_id=uuid4(), expected_revision=None)
        )

    @rule(
        agent=AGENTS,
        name=NAMES,
        back=st.sampled_from([0, 0, 0, 0, 1, 2, 5, -1]),
        added=st.lists(TEXTS, max_size=3),
        dropped=st.sampled_from([None, None, 0, 1, 2, 9, -1]),
        values=VALUES,
        remove=st.lists(st.sampled_from(["x", "y"]), max_size=1),
        expected=st.sampled_from([None, None, None, "right", "wrong"]),
        checkpoint=st.sampled_from(["", "", "", "k1"]),
        self_contained=st.sampled_from([False, False, False, True]),
    )
    def save_delta(self, agent, name, back, added, dropped, values, remove, expected, checkpoint, self_contained):
        head = self._head(agent, name)
        base = max(head - back, 0)
        count = self._message_count(agent, name, base)
        self._both_save(
            Save(
                tenant=self._tenant,
                agent_id=agent,
                session_name=name,
                content=delta(
                    base,
                    added,
                    truncate_to=None if dropped is None else max(count - dropped, 0),
                    values=values,
                    remove=remove,
                    provider=checkpoint,
                ),
                actor="test",
                expected_revision={None: None, "right": head, "wrong": head + 1}[expected],
                request_id=uuid4(),
                checkpoint_id=checkpoint,
                self_contained=self_contained,
            )
        )

    @rule(
        agent=AGENTS,
        name=NAMES,
        kept=st.integers(0, 14),
        added=st.lists(TEXTS, max_size=9),
        batch=st.integers(1, 5),
        values=VALUES,
        expected=st.sampled_from([None, None, "right", "wrong"]),
        checkpoint=st.sampled_from(["", "", "", "k1"]),
        self_contained=st.sampled_from([False, False, False, True]),
        repeated=st.booleans(),
    )
    def upload(self, agent, name, kept, added, batch, values, expected, checkpoint, self_contained, repeated):
        texts = [*self._texts.get((agent, name), [])[:kept], *added]
        head = self._head(agent, name)
        save = Save(
            tenant=self._tenant,
            agent_id=agent,
            session_name=name,
            content=content(texts, values, provider=checkpoint),
            actor="test",
            expected_revision={None: None, "right": head, "wrong": head + 1}[expected],
            request_id=uuid4(),
            checkpoint_id=checkpoint,
            self_contained=self_contained,
        )
        self._texts[agent, name] = texts
        self._last_save = save
        for _ in range(2 if repeated else 1):
            self._same(lambda store: upload(store, save, batch, self._now))

    @rule(agent=AGENTS, name=NAMES, revision=st.integers(0, 12), limit=st.integers(0, 6), recorded=st.booleans())
    def download(self, agent, name, revision, limit, recorded):
        change = self._new_change(agent, name)
        target = Target(revision=revision or None)
        for _ in range(2):
            self._same(lambda store: download(store, change, target, limit, self._now, recorded))

    @rule(changed=st.booleans())
    def repeat_save(self, changed):
        if self._last_save is not None:
            self._both_save(self._last_save._replace(client_id="another" if changed else self._last_save.client_id))

    @rule(agent=AGENTS, suggested=NAMES, texts=st.lists(TEXTS, max_size=2))
    def save_server_named(self, agent, suggested, texts):
        self._both_save(
            Save(self._tenant, agent, suggested, content(texts), "test", request_id=uuid4(), server_named=True)
        )

    @rule(agent=AGENTS, name=NAMES, revision=st.integers(0, 12), limit=st.integers(0, 6))
    def restore(self, agent, name, revision, limit):
        change = self._new_change(agent, name)
        target = Target(revision=revision or None)
        self._same(lambda store: store.restore(change, target, limit, self._now))
        self._same(lambda store: store.restore(change, target, limit, self._now))

    @rule(agent=AGENTS, name=NAMES, checkpoint=st.sampled_from(["k1", "k2"]), limit=st.integers(0, 3))
    def read_checkpoint(self, agent, name, checkpoint, limit):
        key = SessionKey(self._tenant, agent, name)
        target = Target(checkpoint_id=checkpoint)
        self._same(lambda store: store.get_revision(key, target, with_state=True, message_limit=limit))

    @rule(agent=AGENTS, name=NAMES, purge=st.booleans(), expected=st.sampled_from([None, 1, "right"]))
    def delete(self, agent, name, purge, expected):
        number = self._head(agent, name) or 1 if expected == "right" else expected
        change = self._new_change(agent, name, number)
        self._same(lambda store: store.delete(change, purge=purge, now=self._now))
        if not purge:
            self._same(lambda store: store.delete(change, purge=purge, now=self._now))

    @rule(agent=AGENTS, name=NAMES)
    def undelete(self, agent, name):
        change = self._new_change(agent, name)
        self._same(lambda store: store.undelete(change, self._now))
        self._same(lambda store: store.undelete(change, self._now))

    @rule(full=st.sampled_from([2, 3, 3, 64]), growing=st.booleans())
    def pack(self, full, growing):
        heard = Heard()
        packer = Packer(self._store._database, Rests(0, 10**9 if growing else 0), heard, take_over=True, target=full)
        assert self._runner.run(packer.finish()) == 0
        PACKED.append(heard.messages)
        assert not heard.damaged

    @rule(steps=st.integers(1, 3))
    def packer_dies(self, steps):
        packer = Packer(self._store._database, Rests(0, 0), take_over=True, target=3)
        self._runner.run(step_by_step(packer, steps))

    @rule()
    def collector_dies(self):
        self._collector = self._new_collector()

    @rule(agent=AGENTS, name=NAMES, texts=st.lists(TEXTS, max_size=6), expired=st.booleans())
    def upload_breaks_off(self, agent, name, texts, expired):
        save = Save(self._tenant, agent, name, content([]), "test", request_id=uuid4())
        self._runner.run(begin_upload(self._store, save, content(texts).messages, 2))
        if expired:
            self._runner.run(self._store._database.fetch(EXPIRE))

    @rule(agent=AGENTS, steps=st.integers(1, 6), walk=st.booleans())
    def collect(self, agent, steps, walk):
        self._runner.run(self._collect(steps, bucket_of(self._tenant, agent) if walk else None))

    async def _collect(self, steps: int, walk: int | None) -> None:
        if walk is not None:
            await self._store._database.fetch(WALK_THERE, walk)
        for _ in range(steps):
            await self._collector.step()

    @rule(
        agent=st.sampled_from(["", "ada"]),
        order=st.sampled_from(SessionOrder),
        descending=st.booleans(),
        prefix=st.sampled_from(["", "o"]),
        deleted=st.booleans(),
        user=st.sampled_from(["", "u1"]),
    )
    def list_sessions(self, agent, order, descending, prefix, deleted, user):
        query = SessionQuery(
            self._tenant,
            agent,
            page_size=10,
            order=order,
            descending=descending,
            name_prefix=prefix,
            show_deleted=deleted,
            user_id=user,
        )
        self._same(lambda store: store.list_sessions(query))

    @rule(agent=AGENTS, name=NAMES, descending=st.booleans(), after=st.sampled_from([None, 3]), kind=st.booleans())
    def list_revisions(self, agent, name, descending, after, kind):
        query = RevisionQuery(
            SessionKey(self._tenant, agent, name), 5, after, descending, {"kind": "k1"} if kind else {}
        )
        self._same(lambda store: store.list_revisions(query))

    @invariant()
    def time_goes_on(self):
        self._now += timedelta(microseconds=1)

    def _both_save(self, save: Save) -> None:
        self._last_save = save
        self._same(lambda store: store.save(save, self._now))

    def _same(self, call) -> None:
        ours = run_now(lambda: call(self._store), self._runner)
        theirs = run_now(lambda: call(self._oracle), self._runner)
        assert ours == theirs
        SEEN[ours.__name__ if isinstance(ours, type) else type(ours).__name__] += 1

    def _head(self, agent: str, name: str) -> int:
        found = run_now(lambda: self._oracle.get_session(SessionKey(self._tenant, agent, name)), self._runner)
        return 0 if isinstance(found, type) else found.head_revision

    def _message_count(self, agent: str, name: str, revision: int) -> int:
        key = SessionKey(self._tenant, agent, name)
        target = Target(revision=revision or None)
        found = run_now(lambda: self._oracle.get_revision(key, target, with_state=False, message_limit=0), self._runner)
        return 0 if isinstance(found, type) or not revision else found[1].message_count

    def _new_change(self, agent: str, name: str, expected: int | None = None) -> Change:
        return Change(SessionKey(self._tenant, agent, name), "test", uuid4(), expected_revision=expected)


async def upload(store: SessionStore, save: Save, batch: int, now: datetime) -> Saved:
    """Save by an upload in batches of so many messages."""
    assert isinstance(save.content, Content)
    messages, rest = save.content.messages, save._replace(content=save.content._replace(messages=()))
    begun = await begin_upload(store, rest, messages, batch)
    return await begun.finish(rest, now)


async def begin_upload(store: SessionStore, save: Save, messages: Sequence[bytes], batch: int) -> Upload:
    """Begin an upload, and send all messages."""
    begun = await store.begin_upload(save)
    for first in range(0, len(messages), batch):
        await begun.add(messages[first : first + batch])
    return begun


async def step_by_step(packer: Packer, steps: int) -> None:
    """Take so many steps of a round, and leave it there."""
    for _ in range(steps):
        await packer.step()


async def download(
    store: SessionStore, change: Change, target: Target, limit: int, now: datetime, recorded: bool
) -> Restored:
    """Restore by a download."""
    found = await store.download(change, target, limit, now, recorded=recorded)
    async with aclosing(found.parts) as parts:
        return Restored(found.session, found.revision, [found.state, *[part async for part in parts]])


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a few messages fill a segment, and a part of a download."""
    monkeypatch.setattr(transcript, "SEGMENT_BYTES", 20)
    monkeypatch.setattr(downloads, "PART_BYTES", 20)


@pytest.mark.timeout(280)
def test_stores_agree_on_random_histories(database_url: str, tell: Tell) -> None:
    StoresAgree.database_url = database_url
    SEEN.clear()
    PACKED.clear()
    run_state_machine_as_test(
        StoresAgree,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    tell(
        f"random histories: {sum(SEEN.values())} answers of two stores compared, {dict(SEEN)};"
        f" {sum(PACKED)} messages packed"
    )
    # Chance alone may leave out a refusal that takes several steps; the next test leaves out none.
    assert {"SessionNotFound", "RevisionMismatch"} <= SEEN.keys()
    assert sum(PACKED) > EXAMPLES / 10
    assert sum(SEEN.values()) > EXAMPLES * STEPS / 2
    asyncio.run(assert_tidy(database_url))


async def assert_tidy(database_url: str) -> None:
    """Everything is whole; and once all is collected, there is nothing that nothing needs."""
    await collect_all(database_url)
    assert await orphans(database_url) == []
    assert await wrong_rows(database_url) == []


def test_stores_agree_on_every_refusal(database_url: str) -> None:
    StoresAgree.database_url = database_url
    SEEN.clear()
    machine = StoresAgree()
    try:
        refuse_everything(machine)
    finally:
        machine.teardown()
    assert SEEN.keys() >= REFUSALS, f"never seen: {REFUSALS - SEEN.keys()}"


def refuse_everything(machine: StoresAgree) -> None:
    """A history in which each rule of the store is broken once, beside what is allowed."""
    where = {"agent": "ada", "name": "one"}
    plain = {"kept": 9, "added": ["a"], "values": {}, "labels": None, "self_contained": False}

    def save(expected: str | None = None, checkpoint: str = "", user: str = "") -> None:
        machine.save(**where, **plain, expected=expected, checkpoint=checkpoint, user=user)

    machine.restore(**where, revision=0, limit=0)  # not found
    save(expected="zero", checkpoint="k1", user="u1")
    machine.repeat_save(changed=False)
    machine.repeat_save(changed=True)
    save(expected="wrong")
    save(user="u2")
    save(checkpoint="k1")
    machine.save_server_named(agent="ada", suggested="one", texts=["b"])
    machine.restore(**where, revision=12, limit=0)
    machine.undelete(**where)
    machine.delete(**where, purge=False, expected=None)
    save()
    machine.undelete(**where)
    save(expected="right")

    def save_delta(back: int, dropped: int | None = None) -> None:
        nothing = {"added": [], "values": {}, "remove": [], "checkpoint": "", "self_contained": False}
        machine.save_delta(**where, **nothing, back=back, dropped=dropped, expected=None)

    save_delta(back=0)
    save_delta(back=0, dropped=-1)
    save_delta(back=-1)
