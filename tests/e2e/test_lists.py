"""Lists: every order, every filter, page by page."""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_pb2 import Session
from grpc import StatusCode

from tests.fixtures.lister import Lister
from tests.fixtures.refusals import refusal
from tests.fixtures.shared_server import Database, Wire

NAMES = ["a", "B", "b", "a%", "a_", "ab", "a%b", "é", "e\u0301", "🙂", "\\", "a\\%"]
ORDERS = [f"{key}{direction}" for key in ("create_time", "update_time", "name") for direction in ("", " desc")]


def sort_key(order_by: str) -> Callable[[Session], Any]:
    match order_by.split()[0]:
        case "name":
            return lambda session: session.session_name.encode()
        case "create_time":
            return lambda session: session.create_time.ToNanoseconds()
        case _:
            return lambda session: session.update_time.ToNanoseconds()


# ---- sessions


@pytest.mark.parametrize("order_by", ORDERS)
@pytest.mark.parametrize("whole_tenant", [False, True])
def test_every_order_page_by_page_with_ties(
    lister: Lister, wire: Wire, shared_database: Database, order_by: str, whole_tenant: bool
) -> None:
    twin = Lister(wire, lister.agent_id + "-twin")
    mark = uuid.uuid4().hex
    for owner in (lister, twin):
        for name in NAMES:
            owner.save(name, user_id=mark)
    # Times repeat, so that ties are met within a page and between pages.
    shared_database.fetch(
        "UPDATE sessions SET create_time = '2026-01-01'::timestamptz + (session_id % 3) * interval '1 second',"
        " update_time = '2026-02-01'::timestamptz + (session_id % 2) * interval '1 microsecond' WHERE user_id = $1",
        mark,
    )
    scope = {"agent_id": "", "user_id": mark} if whole_tenant else {}
    pages = list(lister.pages(order_by=order_by, page_size=5, **scope))
    found = [session for page in pages for session in page]
    wanted = [(owner.agent_id, name) for owner in ((lister, twin) if whole_tenant else (lister,)) for name in NAMES]
    assert sorted((s.agent_id, s.session_name) for s in found) == sorted(wanted)
    keys = [sort_key(order_by)(session) for session in found]
    assert keys == sorted(keys, reverse=order_by.endswith("desc"))
    assert [len(page) for page in pages[:-1]] == [5] * (len(pages) - 1)
    assert found == lister.all(order_by=order_by, page_size=1000, **scope)
    if not order_by.endswith("desc"):
        assert found[::-1] == lister.all(order_by=f"{order_by} desc", page_size=7, **scope)


def test_newest_first_is_the_default(lister: Lister) -> None:
    saved = [lister.save(name).session for name in NAMES]
    assert lister.all(page_size=4) == saved[::-1] == lister.all(order_by="create_time desc")


def test_a_list_shows_what_get_shows(lister: Lister, wire: Wire) -> None:
    lister.save("s", 3, user_id="u", labels=pb.Labels(entries={"k": "v"}))
    wire.stub.RestoreSession(pb.RestoreSessionRequest(agent_id=lister.agent_id, session_name="s"))
    got = wire.stub.GetSession(pb.GetSessionRequest(agent_id=lister.agent_id, session_name="s")).session
    assert lister.all() == [got]
    assert (got.message_count, got.user_id, dict(got.labels)) == (3, "u", {"k": "v"})


def test_filters(lister: Lister) -> None:
    for number, name in enumerate(NAMES):
        labels = {"parity": str(number % 2), "n": str(number)}
        lister.save(name, user_id=f"u{number % 3}", labels=pb.Labels(entries=labels))
    lister.delete("ab")

    def names(**filters: Any) -> set[str]:
        found = lister.names(page_size=2, **filters)
        assert len(set(found)) == len(found)
        return set(found)

    live = set(NAMES) - {"ab"}
    assert names() == live
    assert names(show_deleted=True) == set(NAMES)
    assert names(user_id="u1") == set(NAMES[1::3])
    assert names(user_id="u") == set()
    assert names(labels={"parity": "0"}) == set(NAMES[0::2])
    assert names(labels={"parity": "0", "n": "2"}) == {NAMES[2]}
    assert names(labels={"parity": "1", "n": "2"}) == set()
    assert names(labels={"other": ""}) == set()
    assert names(name_prefix="a%") == {"a%", "a%b"}
    assert names(name_prefix="a_") == {"a_"}
    assert names(name_prefix="a") == {name for name in live if name.startswith("a")}
    assert names(name_prefix="\\") == {"\\"}
    assert names(name_prefix="%") == names(name_prefix="_") == set()
    assert names(name_prefix="e") == {"e\u0301"}
    assert names(name_prefix="a", user_id="u0", labels={"parity": "1"}) == {"a%"}
    assert names(name_prefix="ab", show_deleted=True) == {"ab"}


@pytest.mark.parametrize(("size", "length"), [(0, 50), (1, 1), (50, 50), (1000, 1000), (1001, 1000), (5000, 1000)])
def test_page_sizes(thousand_and_one: Lister, size: int, length: int) -> None:
    page = thousand_and_one.page(page_size=size)
    assert len(page.sessions) == length
    assert page.next_page_token
    rest = thousand_and_one.page(page_size=1000, page_token=page.next_page_token)
    assert len(rest.sessions) == 1001 - length
    assert not rest.next_page_token


@pytest.fixture(scope="module")
def thousand_and_one(wire: Wire, shared_database: Database) -> Lister:
    """Return an agent that has 1,001 sessions: one saved, the others copied in the tables."""
    owner = Lister(wire, f"agent-{uuid.uuid4().hex}")
    owner.save("s 0")
    columns = [
        name
        for (name,) in shared_database.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'sessions'::regclass AND attnum > 0 AND NOT attisdropped"
        )
    ]
    changed = {"session_id": "s.session_id + n * 1000000", "session_name": "'s ' || n", "uid": "gen_random_uuid()"}
    selected = ", ".join(changed.get(name, f"s.{name}") for name in columns)
    shared_database.fetch(
        f"INSERT INTO sessions ({', '.join(columns)}) SELECT {selected}"  # noqa: S608  names of its own columns
        " FROM sessions AS s, generate_series(1, 1000) AS n WHERE s.agent_id = $1",
        owner.agent_id,
    )
    return owner


def test_a_full_last_page_has_no_token(lister: Lister) -> None:
    for name in ("a", "b"):
        lister.save(name)
    assert not lister.page(page_size=2).next_page_token
    assert lister.page(page_size=1).next_page_token
    assert list(Lister.pages(lister, agent_id="nobody")) == [[]]


def test_only_a_genuine_page_token_opens_a_page(lister: Lister, wire: Wire) -> None:
    for name in NAMES:
        lister.save(name)
    lister.save("a", 2)
    token = lister.page(page_size=2).next_page_token
    assert lister.page(page_size=5, page_token=token).sessions  # page_size may change

    def refused(call: Callable[..., object], **fields: Any) -> bool:
        found = refusal(call, **fields)
        return (found.code, found.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN")

    others: list[dict[str, Any]] = [
        {"agent_id": "another"},
        {"agent_id": ""},
        {"order_by": "create_time"},
        {"order_by": "create_time desc"},
        {"user_id": "u"},
        {"labels": {"k": "v"}},
        {"name_prefix": "a"},
        {"show_deleted": True},
    ]
    for other in others:
        assert refused(lister.page, page_token=token, **other), other
    revision_token = lister.revision_page("a", page_size=1).next_page_token
    assert refused(lister.page, page_token=revision_token)
    for tampered in tampered_with(token):
        assert refused(lister.page, page_token=tampered), tampered
    for tampered in (token, *tampered_with(revision_token)):
        assert refused(lister.revision_page, name="a", page_token=tampered), tampered
    assert refused(lister.revision_page, name="a", page_token=revision_token, order_by="revision")
    assert refused(lister.revision_page, name="a", page_token=revision_token, metadata={"k": "v"})
    assert refused(lister.revision_page, name="b", page_token=revision_token)


def tampered_with(token: str) -> Iterator[str]:
    """Yield tokens like this one: with changed, missing and odd parts."""
    parts = json.loads(base64.urlsafe_b64decode(token))
    oddities: list[Any] = [None, True, 0, -1, 10**30, 1.5, "", "x", "\ud800", [], {}, ["x"] * 3, float("nan")]
    changed = [[*parts[:place], odd, *parts[place + 1 :]] for place in range(len(parts)) for odd in oddities]
    shapes: list[Any] = [parts[:-1], [*parts, 1], {}, [], None, 1, [[[]]]]
    for other in (*(tampered for tampered in changed if tampered != parts), *shapes):
        yield base64.urlsafe_b64encode(json.dumps(other).encode()).decode()
    yield base64.urlsafe_b64encode(b"[" * 20_000).decode()
    yield base64.urlsafe_b64encode(b"[1, " + b"9" * 6000 + b", 1]").decode()
    yield from (token[:-1], token[1:], f"{token}=", f" {token}", token[:-4], token + token, token.swapcase())


@pytest.mark.parametrize("order_by", ORDERS)
def test_saves_between_pages_move_nobody_else(lister: Lister, order_by: str) -> None:
    untouched = [f"untouched {number:02d}" for number in range(12)]
    for number, name in enumerate(untouched):
        lister.save(name)
        lister.save(f"busy {number:02d}")
    seen: list[str] = []
    for number, page in enumerate(lister.pages(order_by=order_by, page_size=3)):
        seen += [session.session_name for session in page]
        if number < 10:  # new ones come to the front or the end; old ones are saved, deleted, and made again
            for name in (f"a new {number:02d}", f"zz new {number:02d}", f"busy {number:02d}"):
                lister.save(name, 2)
            lister.delete(f"busy {number:02d}")
    assert sorted(name for name in seen if name in untouched) == untouched


# ---- revisions


def test_revisions_page_by_page(lister: Lister) -> None:
    saved = [lister.save("s", n % 3, metadata={"third": str(n % 3)}, checkpoint_id=f"c{n}").revision for n in range(11)]
    for order_by, wanted in (("", saved[::-1]), ("revision desc", saved[::-1]), ("revision", saved)):
        pages = list(lister.revisions("s", page_size=4, order_by=order_by))
        assert [len(page) for page in pages] == [4, 4, 3]
        assert [revision for page in pages for revision in page] == wanted
    filtered = [r.revision for p in lister.revisions("s", page_size=2, metadata={"third": "1"}) for r in p]
    assert filtered == [11, 8, 5, 2]
    assert list(lister.revisions("s", metadata={"third": "1", "more": ""})) == [[]]
    assert len(lister.revision_page("s", page_size=5000).revisions) == 11


def test_a_deleted_session_still_lists_its_revisions(lister: Lister) -> None:
    lister.save("s")
    lister.delete("s")
    assert [r.revision for page in lister.revisions("s") for r in page] == [1]
    assert lister.names() == []
    assert lister.page(show_deleted=True).sessions[0].HasField("delete_time")


def test_new_revisions_do_not_disturb_a_list(lister: Lister) -> None:
    for number in range(9):
        lister.save("s", number)
    seen: list[int] = []
    for page in lister.revisions("s", page_size=2):
        seen += [revision.revision for revision in page]
        lister.save("s", len(seen))
    assert seen == list(range(9, 0, -1))
