"""The run's database: transactions that are rolled back, connections that are cut, and the log at the end."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from session_service.events.tokens import Tokens
from session_service.sessions.events import LogIdentity, Place

from tests.faults.database import SERVERS, connected, query

PERCENT = 15
"""Of the transactions that log events are rolled back, when all of their work is done."""

# By the transaction's id, so that a batch fails as a whole or not at all, and the next attempt may succeed. One half
# says that it may be repeated; of the other the server believes that one of its items is at fault. A sequence is not
# rolled back, so it counts.
ROLL_BACK = f"""
    CREATE SEQUENCE rolled_back;
    GRANT USAGE ON SEQUENCE rolled_back TO PUBLIC;
    CREATE FUNCTION roll_back() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        lot integer := abs(hashint8extended(pg_current_xact_id()::text::bigint, 0) % 100);
    BEGIN
        IF lot < {PERCENT} THEN
            PERFORM nextval('rolled_back');
            RAISE EXCEPTION 'rolled back by a test'
                USING ERRCODE = CASE WHEN lot % 2 = 0 THEN 'serialization_failure' ELSE 'raise_exception' END;
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER roll_back AFTER INSERT ON session_events DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION roll_back();
"""
KEEP = "DROP TRIGGER roll_back ON session_events"
NAIVE = "CREATE INDEX ON session_events (seq)"
ROLLED_BACK = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM rolled_back"
COUNT = "SELECT count(*) FROM session_events"
LOG = """
    SELECT xid::text::bigint AS xid, seq, event_id::text, type, agent_id, session_name, revision
    FROM session_events ORDER BY xid, seq
"""
KEY = "SELECT token_secret FROM log_state WHERE source = 0"
TERMINATE = "SELECT pg_terminate_backend($1)"


class Logged(NamedTuple):
    """An event of the log."""

    xid: int
    seq: int
    event_id: str
    type: int
    agent_id: str
    session_name: str
    revision: int


class SoakDatabase:
    """Seen from outside of the servers, as the owner."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._tokens: Tokens

    async def prepare(self, *, naive: bool) -> None:
        """Have transactions rolled back from now on."""
        async with connected(self.url) as connection:
            await connection.execute(ROLL_BACK)
            if naive:
                await connection.execute(NAIVE)
        await self.connect()

    async def connect(self) -> None:
        """Take what is needed to read tokens."""
        secret = (await query(self.url, KEY))[0][0]
        self._tokens = Tokens(LogIdentity(0, 0, (), secret))

    async def keep_all(self) -> None:
        """Roll back nothing any more."""
        await query(self.url, KEEP)

    async def events(self) -> int:
        """Return how many are in the log now."""
        return int((await query(self.url, COUNT))[0][0])

    async def rolled_back(self) -> int:
        """Return how many transactions were, by the test."""
        return int((await query(self.url, ROLLED_BACK))[0][0])

    async def log(self) -> Sequence[Logged]:
        """Return all events, in order."""
        return [Logged(*row) for row in await query(self.url, LOG)]

    async def terminate_some(self, chance: random.Random) -> int:
        """Cut one to three connections of the servers; return how many."""
        async with connected(self.url) as connection:
            found = [row["pid"] for row in await connection.fetch(SERVERS)]
            chosen = chance.sample(found, min(len(found), chance.randint(1, 3)))
            for pid in chosen:
                await connection.fetchval(TERMINATE, pid)
        return len(chosen)

    def place(self, token: bytes) -> Place:
        """Return the place that a resume token is of."""
        return self._tokens.place(token)
