"""`serve` removes what nothing needs, and old events, by itself."""

import asyncpg
from agent_sessions import AgentState, Payload, SessionClient

from tests.faults.metrics import until_counted, value_of
from tests.fixtures.collecting import orphans
from tests.fixtures.conversations import conversation
from tests.fixtures.servers import ServerFactory

BUDGET = "--housekeeping-budget=60"


def with_values(**values: bytes) -> AgentState:
    state = conversation("a", "b")
    for name, data in values.items():
        state.values[name].CopyFrom(Payload(data=data))
    return state


async def test_a_server_collects_what_a_purge_leaves(server: ServerFactory, database_url: str) -> None:
    process = server(BUDGET, database_url=database_url)
    async with SessionClient(process.address) as client:
        kept = with_values(shared=b"s" * 5000)
        await client.save("ada", "gone", with_values(shared=b"s" * 5000, own=b"o" * 5000))
        await client.save("ada", "kept", kept)
        await client.delete("ada", "gone", purge=True)
        await until_counted(process, 'session_service_collected_rows_total{table="state_values"}', 1)
        assert (await client.restore("ada", "kept")).agent_state.values == kept.values
    assert value_of(process, "session_service_collect_seconds_count") > 0
    assert await orphans(database_url) == []


async def test_a_server_trims_the_log(server: ServerFactory, database_url: str) -> None:
    owner = await asyncpg.connect(database_url)
    process = server(BUDGET, "--event-retention=86400", database_url=database_url)
    async with SessionClient(process.address) as client:
        for _ in range(3):
            await client.save("ada", "s", conversation("a"))
        await owner.execute("UPDATE session_events SET create_time = now() - interval '25 hours' WHERE revision < 3")
        await until_counted(process, "session_service_trimmed_events_total", 2)
        assert [row["revision"] for row in await owner.fetch("SELECT revision FROM session_events")] == [3]
        assert await owner.fetchval("SELECT horizon_seq FROM log_state") == 2
        assert [r.revision async for r in client.list_revisions("ada", "s", order_by="revision")] == [1, 2, 3]
    await until_counted(process, "session_service_event_log_age_seconds", 0.001)
    await owner.close()
