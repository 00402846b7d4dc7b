"""What is not read: lists and saves open no payload, and a save costs the same however long the history is."""

from typing import Any

from agent_sessions.v1 import session_service_pb2 as pb
from grpc import StatusCode

from tests.fixtures.figures import Tell
from tests.fixtures.lister import Lister
from tests.fixtures.refusals import refusal
from tests.fixtures.shared_server import Database, Wire


def test_lists_and_saves_read_no_payload(lister: Lister, wire: Wire, shared_database: Database) -> None:
    def run_all() -> list[Any]:
        listed = (lister.all(), list(lister.revisions("s")))
        named: dict[str, Any] = {"agent_id": lister.agent_id, "session_name": "s"}
        described = wire.stub.GetRevision(pb.GetRevisionRequest(**named, revision=1))
        return [*listed, wire.stub.GetSession(pb.GetSessionRequest(**named)), described]

    for count in (3, 4):
        lister.save("s", count, metadata={"k": "v"})
    before = run_all()
    shared_database.fetch(
        "WITH mine AS (SELECT r.* FROM revisions r JOIN sessions s USING (bucket, session_id) WHERE agent_id = $1),"
        " segments AS (UPDATE transcript_segments g SET payload = '\\xdead', checksum = 0 FROM mine"
        "  WHERE g.bucket = mine.bucket AND g.transcript_id = mine.transcript_id)"
        " UPDATE revisions r SET state = '\\xdead' FROM mine"
        " WHERE (r.bucket, r.session_id, r.revision) = (mine.bucket, mine.session_id, mine.revision)",
        lister.agent_id,
    )
    restore = pb.RestoreSessionRequest(agent_id=lister.agent_id, session_name="s")
    assert refusal(wire.stub.RestoreSession, restore).code is StatusCode.DATA_LOSS
    assert run_all() == before
    # A save that extends its head, too: it reads nothing of what it extends.
    assert lister.save("s", 5).revision.revision == 3


READS = """
    SELECT pg_stat_force_next_flush(),
        (SELECT sum(coalesce(idx_tup_fetch, 0) + seq_tup_read) FROM pg_stat_user_tables) AS rows,
        (SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0)
            + coalesce(toast_blks_read + toast_blks_hit, 0) + coalesce(tidx_blks_read + tidx_blks_hit, 0))
            FROM pg_statio_user_tables) AS buffers
"""


class ReadCounters:
    """What the server's connections have read of the tables so far: rows, and buffers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self) -> tuple[int, int]:
        # A backend tells its counts for certain when it ends; the server opens new connections by itself.
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        self._database.fetch(f"SELECT pg_terminate_backend(pid, 20000) {others}")
        row = self._database.fetch(READS)[0]
        return int(row["rows"]), int(row["buffers"])


def test_what_a_save_reads_does_not_grow_with_the_history(
    lister: Lister, shared_database: Database, tell: Tell
) -> None:
    counters = ReadCounters(shared_database)
    saves = 20

    def cost_at(count: int) -> tuple[float, float]:
        """Return rows and buffers read by one save that extends its head, on average."""
        lister.save("s", count)
        before = counters.take()
        for number in range(1, saves + 1):
            lister.save("s", count + number)
        after = counters.take()
        return (after[0] - before[0]) / saves, (after[1] - before[1]) / saves

    for count in range(1, 51):
        lister.save("s", count)
    young_rows, young_buffers = cost_at(50)
    for count in range(75, 2000, 25):
        lister.save("s", count)
    old_rows, old_buffers = cost_at(2000)
    tell(
        f"read by a save: at 50 messages {young_rows} rows, {young_buffers} buffers;"
        f" at 2000 messages {old_rows} rows, {old_buffers} buffers"
    )
    assert young_rows > 0
    assert young_buffers > 0
    # Whatever else the server does reads a little, the more the longer these saves take; the history has 1,950 more.
    assert old_rows <= young_rows + 10
    # Indexes may have become one level higher, as they do for every session of the database.
    assert old_buffers <= 1.5 * young_buffers + 10
