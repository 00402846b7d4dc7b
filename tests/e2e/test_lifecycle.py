"""A session's life through the wire: named, saved on conditions, labelled, deleted, and brought back."""

import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from agent_sessions.v1 import session_service_pb2 as pb
from agent_sessions.v1.session_pb2 import AgentState
from grpc import StatusCode

from tests.fixtures.agents import Agent
from tests.fixtures.conversations import conversation, numbered
from tests.fixtures.refusals import refusal
from tests.fixtures.shared_server import Database, Wire

SAVED, RESTORED, DELETED, UNDELETED = 1, 2, 3, 4
"""session_events.type"""


# ---- names


def test_a_name_belongs_to_its_agent(agent: Agent, other: Agent) -> None:
    agent.save("s", conversation("mine"))
    theirs = other.save("s", conversation("theirs"))
    assert theirs.revision.revision == 1
    assert theirs.session.uid != agent.get("s").uid
    assert agent.state("s").message_history[0].text == "mine"
    assert other.state("s").message_history[0].text == "theirs"
    missing = refusal(other.get, "only mine")
    assert (missing.code, missing.reason) == (StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


def test_names_are_compared_code_point_by_code_point(agent: Agent) -> None:
    names = ["name", "Name", "name ", "\u00e9", "e\u0301", "\ufb01", "fi", "🙂" * 255]
    for name in names:
        saved = agent.save(name, conversation(name))
        assert (saved.session.session_name, saved.revision.revision) == (name, 1)
    assert [agent.state(name).message_history[0].text for name in names] == names


def test_a_name_saved_again_is_the_same_session(agent: Agent) -> None:
    first = agent.save("s", conversation("a"))
    second = agent.save("s", conversation("a", "b"))
    assert (first.revision.revision, second.revision.revision) == (1, 2)
    assert second.revision.parent_revision == 1
    assert second.session.uid == first.session.uid
    assert second.session.create_time == first.session.create_time
    assert second.session.head_revision == 2
    assert nanoseconds(second.session.update_time) > nanoseconds(first.session.update_time)


def nanoseconds(moment: Any) -> int:
    return int(moment.ToNanoseconds())


def test_automatic_names_are_all_different(agent: Agent) -> None:
    with ThreadPoolExecutor(50) as pool:
        saves = list(pool.map(lambda n: agent.save("", conversation(str(n))), range(50)))
    names = [saved.session.session_name for saved in saves]
    assert len(set(names)) == 50
    assert all(re.fullmatch(r"session-\d{8}T\d{6}\.\d{6}Z(-\d+)?", name) for name in names)
    assert [saved.revision.revision for saved in saves] == [1] * 50
    for number, name in enumerate(names):
        assert agent.state(name).message_history[0].text == str(number)


# ---- what a save can ask for


def test_expected_revision(agent: Agent) -> None:
    assert agent.save("s", conversation("a"), expected_revision=0).revision.revision == 1
    assert agent.save("s", conversation("b"), expected_revision=1).revision.revision == 2
    for wrong in (0, 1, 3, 2**63 - 1):
        refused = refusal(agent.save, "s", conversation("c"), expected_revision=wrong)
        assert (refused.code, refused.reason) == (StatusCode.ABORTED, "REVISION_MISMATCH")
        assert refused.metadata == {"expected_revision": str(wrong), "current_revision": "2"}
        assert refused.retry_after is None
    absent = refusal(agent.save, "new", conversation("c"), expected_revision=1)
    assert (absent.reason, absent.metadata["current_revision"]) == ("REVISION_MISMATCH", "0")
    assert agent.state("s").message_history[0].text == "b"
    assert agent.get("s").head_revision == 2


def test_expected_revision_of_delete_and_undelete(agent: Agent) -> None:
    agent.save("s", conversation("a"))
    for refused in (
        refusal(agent.delete, "s", expected_revision=2),
        refusal(agent.delete, "s", expected_revision=2, purge=True),
    ):
        assert (refused.code, refused.metadata["current_revision"]) == (StatusCode.ABORTED, "1")
    agent.delete("s", expected_revision=1)
    assert refusal(agent.undelete, "s", expected_revision=2).reason == "REVISION_MISMATCH"
    agent.undelete("s", expected_revision=1)
    agent.delete("s", expected_revision=1, purge=True)


def test_user_id_is_set_once(agent: Agent) -> None:
    assert agent.save("s", conversation("a")).session.user_id == ""
    assert agent.save("s", conversation("a"), user_id="u").session.user_id == "u"
    assert agent.save("s", conversation("a")).session.user_id == "u"
    assert agent.save("s", conversation("a"), user_id="u").session.user_id == "u"
    refused = refusal(agent.save, "s", conversation("a"), user_id="v")
    assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "USER_ID_MISMATCH")
    assert refused.preconditions == [("USER_ID_MISMATCH", f"agents/{agent.id}/sessions/s")]
    assert agent.get("s").head_revision == 4


def test_labels_absent_keep_present_replace_and_empty_clear(agent: Agent) -> None:
    def labels_after(labels: dict[str, str] | None) -> dict[str, str]:
        given = None if labels is None else pb.Labels(entries=labels)
        saved = dict(agent.save("s", conversation("a"), labels=given).session.labels)
        assert dict(agent.get("s").labels) == saved
        return saved

    assert labels_after(None) == {}
    assert labels_after({"a": "1", "b": ""}) == {"a": "1", "b": ""}
    assert labels_after(None) == {"a": "1", "b": ""}
    assert labels_after({"b": "2"}) == {"b": "2"}
    assert labels_after({}) == {}
    most = {f"{n:064d}" + "é" * 191: "🙂" * 1024 for n in range(64)}
    assert labels_after(most) == most


def test_a_checkpoint_id_names_one_revision(agent: Agent, other: Agent) -> None:
    agent.save("s", conversation("a"), checkpoint_id="c")
    refused = refusal(agent.save, "s", conversation("b"), checkpoint_id="c")
    assert (refused.code, refused.reason) == (StatusCode.ALREADY_EXISTS, "CHECKPOINT_ID_EXISTS")
    agent.save("t", conversation("t"), checkpoint_id="c")
    other.save("s", conversation("o"), checkpoint_id="c")
    assert agent.state("s", checkpoint_id="c").message_history[0].text == "a"
    assert agent.get("s").head_revision == 1


def test_metadata_belongs_to_its_revision(agent: Agent) -> None:
    most = {f"key {n}": "v" * 1024 for n in range(64)}
    agent.save("s", conversation("a"), metadata=most)
    agent.save("s", conversation("a"))
    assert dict(agent.revision("s", revision=1).revision.metadata) == most
    assert dict(agent.revision("s").revision.metadata) == {}


def test_a_repeated_request_stores_nothing(agent: Agent) -> None:
    def ask(**fields: Any) -> pb.SaveSessionResponse:
        return agent.save("s", conversation("a"), request_id=request_id, **fields)

    request_id = str(uuid.uuid4())
    first, again = ask(), ask()
    assert (first.replayed, again.replayed) == (False, True)
    assert again.revision == first.revision
    assert agent.get("s").head_revision == 1
    reused = refusal(ask, user_id="u")
    assert (reused.code, reused.reason) == (StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    agent.delete("s")
    assert ask().replayed
    named = {"request_id": str(uuid.uuid4())}
    assert (
        agent.save("", conversation("n"), **named).session.uid == agent.save("", conversation("n"), **named).session.uid
    )


def test_the_snapshots_agent_is_the_requests(agent: Agent) -> None:
    refused = refusal(agent.save, "s", AgentState(agent_id="another"))
    assert (refused.code, refused.reason) == (StatusCode.INVALID_ARGUMENT, "AGENT_ID_MISMATCH")
    assert refused.metadata == {"field": "snapshot.agent_id"}
    assert refusal(agent.get, "s").reason == "SESSION_NOT_FOUND"
    agent.save("s", AgentState())
    assert agent.state("s").agent_id == agent.id


# ---- views


def test_what_is_absent_is_absent(agent: Agent) -> None:
    session = agent.save("s", conversation("a")).session
    assert not session.HasField("last_restore_time")
    assert not session.HasField("delete_time")
    for view in (pb.REVISION_VIEW_UNSPECIFIED, pb.REVISION_VIEW_BASIC):
        assert not agent.revision("s", view=view).HasField("state")
    full = agent.revision("s", view=pb.REVISION_VIEW_FULL)
    assert full.HasField("state")
    assert not full.session.HasField("last_restore_time")
    restored = agent.restore("s").session
    assert restored.HasField("last_restore_time")
    assert restored.update_time == session.update_time
    assert agent.get("s") == restored


# ---- the end, and back


def test_soft_delete_hides_and_undelete_brings_back(agent: Agent) -> None:
    before = agent.save("s", conversation("a"), labels=pb.Labels(entries={"k": "v"})).session
    assert agent.delete("s").HasField("delete_time")
    for call in (
        lambda: agent.save("s", conversation("b")),
        lambda: agent.save("s", conversation("b"), expected_revision=0),
        lambda: agent.restore("s"),
        lambda: agent.delete("s"),
    ):
        refused = refusal(call)
        assert (refused.code, refused.reason) == (StatusCode.FAILED_PRECONDITION, "SESSION_DELETED")
        assert refused.preconditions == [("SESSION_DELETED", f"agents/{agent.id}/sessions/s")]
    assert agent.get("s").HasField("delete_time")
    assert agent.revision("s", view=pb.REVISION_VIEW_FULL).state.message_history[0].text == "a"

    back = agent.undelete("s")
    assert not back.HasField("delete_time")
    before.update_time.CopyFrom(back.update_time)
    assert back == before
    again = refusal(agent.undelete, "s")
    assert (again.code, again.reason) == (StatusCode.ALREADY_EXISTS, "SESSION_NOT_DELETED")
    assert agent.save("s", conversation("a", "b")).revision.revision == 2


@pytest.mark.parametrize("soft_first", [False, True])
def test_purge_removes_everything_and_frees_the_name(agent: Agent, shared_database: Database, soft_first: bool) -> None:
    for state in (numbered(5), numbered(3), conversation("other")):
        old = agent.save("s", state)
    kept = agent.save("kept", numbered(5))
    if soft_first:
        agent.delete("s")
    assert agent.delete("s", purge=True).uid == old.session.uid
    for call in (lambda: agent.get("s"), lambda: agent.restore("s"), lambda: agent.delete("s", purge=True)):
        assert refusal(call).code is StatusCode.NOT_FOUND
    left = shared_database.fetch(
        # What has no session any more, and what is left of this agent's; another agent may share its bucket.
        "SELECT (SELECT count(*) FROM revisions AS r WHERE NOT EXISTS"
        "  (SELECT FROM sessions AS s WHERE s.session_id = r.session_id)),"
        " (SELECT count(*) FROM transcripts AS t WHERE NOT EXISTS"
        "  (SELECT FROM revisions AS r WHERE r.transcript_id = t.transcript_id)),"
        " (SELECT count(*) FROM transcript_segments AS g WHERE NOT EXISTS"
        "  (SELECT FROM transcripts AS t WHERE t.transcript_id = g.transcript_id)),"
        " (SELECT count(*) FROM revisions AS r JOIN sessions AS s USING (session_id) WHERE s.agent_id = $1)",
        agent.id,
    )
    assert [tuple(row) for row in left] == [(0, 0, 0, 1)]
    new = agent.save("s", conversation("new"), expected_revision=0)
    assert new.session.uid not in (old.session.uid, kept.session.uid)
    assert agent.state("s").message_history[0].text == "new"


def test_what_happened_is_in_the_log(agent: Agent, shared_database: Database) -> None:
    request_ids = [str(uuid.uuid4()) for _ in range(7)]
    who: list[dict[str, Any]] = [{"request_id": r, "client_id": f"worker {n}"} for n, r in enumerate(request_ids)]
    agent.save("s", conversation("a"), **who[0])
    agent.save("s", conversation("b"), **who[1])
    agent.restore("s", revision=1, **who[2])
    agent.restore("s", revision=1, **who[2])  # repeated: no second event
    agent.delete("s", **who[3])
    agent.undelete("s", **who[4])
    agent.restore("s", **who[5])
    agent.delete("s", purge=True, **who[6])
    events = shared_database.fetch(
        "SELECT type, revision, request_id::text, client_id, session_name, actor FROM session_events"
        " WHERE agent_id = $1 ORDER BY xid, seq",
        agent.id,
    )
    happened = [(SAVED, 1), (SAVED, 2), (RESTORED, 1), (DELETED, 2), (UNDELETED, 2), (RESTORED, 2), (DELETED, 2)]
    assert [(e["type"], e["revision"]) for e in events] == happened
    assert [e["request_id"] for e in events] == request_ids
    assert [e["client_id"] for e in events] == [w["client_id"] for w in who]
    assert {e["session_name"] for e in events} == {"s"}
    assert {e["actor"] for e in events} == {"anonymous"}


def test_reads_leave_no_event(agent: Agent, wire: Wire, shared_database: Database) -> None:
    agent.save("s", conversation("a"))
    agent.get("s")
    agent.revision("s", view=pb.REVISION_VIEW_FULL)
    wire.stub.ListSessions(pb.ListSessionsRequest(agent_id=agent.id))
    wire.stub.ListRevisions(pb.ListRevisionsRequest(agent_id=agent.id, session_name="s"))
    events = shared_database.fetch("SELECT type FROM session_events WHERE agent_id = $1", agent.id)
    assert [tuple(event) for event in events] == [(SAVED,)]


def test_times_of_a_session_only_go_forward(agent: Agent) -> None:
    times = [nanoseconds(agent.save("s", conversation(str(n))).session.update_time) for n in range(5)]
    assert all(earlier < later for earlier, later in pairwise(times))
    assert nanoseconds(agent.get("s").create_time) == times[0]
