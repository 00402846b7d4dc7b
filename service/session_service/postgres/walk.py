"""Goes through everything that is stored in a bucket, and suspects what no revision needs."""

from collections.abc import AsyncIterator

from session_service.postgres.search import MOST_SUSPECTS, Suspects, ValueKey, acquit, columns, pieces
from session_service.postgres.states import Fetch

LISTED = 2000
"""Rows listed by one statement."""

NOTED = 500
"""Rows written by one."""

_LAST_ID = (1 << 63) - 1

# $1 bucket, $2 transcript after which to list, $3 most. Also segments that have no transcript.
LIST_TRANSCRIPTS = """
    WITH RECURSIVE listed AS (
        SELECT $2::bigint AS id, 0 AS n
        UNION ALL
        SELECT least(
            (SELECT t.transcript_id FROM transcripts AS t WHERE t.bucket = $1 AND t.transcript_id > l.id
                ORDER BY t.transcript_id LIMIT 1),
            (SELECT g.transcript_id FROM transcript_segments AS g WHERE g.bucket = $1 AND g.transcript_id > l.id
                ORDER BY g.transcript_id LIMIT 1)
        ), l.n + 1
        FROM listed AS l WHERE l.id IS NOT NULL AND l.n < $3
    )
    SELECT id FROM listed WHERE id IS NOT NULL AND n > 0 ORDER BY n
"""
# $1 bucket, $2 $3 $4 value after which to list, $5 most.
LIST_VALUES = """
    SELECT tenant_id, agent_id, digest FROM state_values
    WHERE bucket = $1 AND (tenant_id, agent_id, digest) > ($2, $3, $4)
    ORDER BY tenant_id, agent_id, digest LIMIT $5
"""
# $1 bucket, $2 transcripts.
SUSPECT_THE_TRANSCRIPTS = """
    INSERT INTO suspect_transcripts (bucket, transcript_id, since)
    SELECT $1, u.id, now() FROM unnest($2::bigint[]) AS u (id) ORDER BY u.id
    ON CONFLICT DO NOTHING
"""
# $1 bucket, $2 $3 $4 values.
SUSPECT_THE_VALUES = """
    INSERT INTO suspect_values (bucket, tenant_id, agent_id, digest, session_id)
    SELECT $1, u.tenant_id, u.agent_id, u.digest, 0
    FROM unnest($2::bigint[], $3::text[], $4::bytea[]) AS u (tenant_id, agent_id, digest)
    ORDER BY 2, 3, 4
    ON CONFLICT DO NOTHING
"""


async def walk(fetch: Fetch, bucket: int) -> AsyncIterator[None]:
    """Suspects values and transcripts that no revision needs; each step is one short statement.

    What a save writes meanwhile may be suspected wrongly. It does not matter: the search that follows tells.
    """
    async for suspects in _listed(fetch, bucket):
        yield
        async for _ in acquit(fetch, bucket, suspects):
            yield
        for ids in pieces(suspects.transcripts, NOTED):
            await fetch(SUSPECT_THE_TRANSCRIPTS, bucket, ids)
            yield
        for values in pieces(suspects.values, NOTED):
            await fetch(SUSPECT_THE_VALUES, bucket, *columns(values))
            yield


async def _listed(fetch: Fetch, bucket: int) -> AsyncIterator[Suspects]:
    """Everything in the bucket, in parts that are bounded."""
    part = Suspects(set(), set())
    last_id: int | None = -1
    while last_id is not None:
        ids = [row["id"] for row in await fetch(LIST_TRANSCRIPTS, bucket, last_id, LISTED)]
        last_id = ids[-1] if len(ids) == LISTED else None
        part.transcripts.update(ids)
        if len(part.transcripts) >= MOST_SUSPECTS:
            yield part
            part = Suspects(set(), set())
    last: ValueKey | None = ValueKey(-1, "", b"")
    while last is not None:
        values = [ValueKey(*row) for row in await fetch(LIST_VALUES, bucket, *last, LISTED)]
        last = values[-1] if len(values) == LISTED else None
        part.values.update(values)
        if len(part.values) >= MOST_SUSPECTS:
            yield part
            part = Suspects(set(), set())
    yield part
