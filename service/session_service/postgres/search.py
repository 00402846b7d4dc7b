"""Reads all revisions of a bucket, to find what of some values and transcripts they need.

No index tells who uses a row, so everything is read: one search for all suspects of
a bucket, in pages of one statement each, none of which writes or locks anything.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from session_service.postgres.states import Fetch
from session_service.sessions.digests import DIGEST_SIZE

MOST_SUSPECTS = 50_000
"""Values, and transcripts, that one search is for: bounds its memory to some megabytes."""

PAGE = 2000
"""Revisions read by one statement: a few milliseconds."""

# $1 bucket, $2 $3 session and revision after which the page begins, $4 its size, $5 whether transcripts are asked for.
# The values of a session that is purged are nobody's.
READ = """
    WITH page AS MATERIALIZED (
        SELECT r.session_id, r.revision, r.transcript_id, r.value_digests FROM revisions AS r
        WHERE r.bucket = $1 AND (r.session_id, r.revision) > ($2, $3)
        ORDER BY r.session_id, r.revision LIMIT $4
    ),
    named AS (SELECT DISTINCT p.session_id, p.value_digests FROM page AS p WHERE p.value_digests IS NOT NULL)
    SELECT last.session_id, last.revision,
        ARRAY(
            SELECT t.id FROM with_ancestors_v1($1, ARRAY(SELECT DISTINCT p.transcript_id FROM page AS p)) AS t (id)
            WHERE $5
        ) AS transcripts,
        v.tenants, v.agents, v.digests
    FROM (SELECT p.session_id, p.revision FROM page AS p ORDER BY p.session_id DESC, p.revision DESC LIMIT 1) AS last
    CROSS JOIN (
        SELECT array_agg(s.tenant_id) AS tenants, array_agg(s.agent_id) AS agents, array_agg(n.value_digests) AS digests
        FROM named AS n
        CROSS JOIN LATERAL (
            -- Of all indexes that begin with the bucket, only the one of the ids has this order.
            SELECT x.session_id, x.tenant_id, x.agent_id FROM sessions AS x
            WHERE x.bucket = $1 AND x.session_id >= n.session_id
            ORDER BY x.session_id LIMIT 1
        ) AS s
        WHERE s.session_id = n.session_id
    ) AS v
"""
NAMED = ("tenants", "agents", "digests")

_Row = TypeVar("_Row", int, "ValueKey")


class ValueKey(NamedTuple):
    """One big value, within its bucket."""

    tenant_id: int
    agent_id: str
    digest: bytes


class Suspects(NamedTuple):
    """Rows of one bucket that may be unneeded."""

    transcripts: set[int]
    values: set[ValueKey]

    def any(self) -> bool:
        """Whether there are any left."""
        return bool(self.transcripts or self.values)


async def acquit(fetch: Fetch, bucket: int, suspects: Suspects) -> AsyncIterator[None]:
    """Takes from the suspects what a revision needs; each step reads a page.

    Revisions that are saved meanwhile may be missed. They need nothing but what older revisions of their session
    need as well, what they bring with them, and values that they name anew; see Collector.
    """
    place = (-1, -1)
    while suspects.any():
        pages = await fetch(READ, bucket, *place, PAGE, bool(suspects.transcripts))
        if not pages:
            return
        page = pages[0]
        place = (page["session_id"], page["revision"])
        suspects.transcripts.difference_update(page["transcripts"])
        for tenant_id, agent_id, digests in zip(*(page[column] or () for column in NAMED), strict=True):
            for start in range(0, len(digests), DIGEST_SIZE):
                suspects.values.discard(ValueKey(tenant_id, agent_id, digests[start : start + DIGEST_SIZE]))
        yield


def pieces(rows: Collection[_Row], size: int) -> Iterator[Sequence[_Row]]:
    """The rows in order of their keys, so many at a time."""
    ordered = sorted(rows)
    for start in range(0, len(ordered), size):
        yield ordered[start : start + size]


def columns(values: Sequence[ValueKey]) -> Sequence[Sequence[Any]]:
    """The values' keys as arrays: tenants, agents, digests."""
    return [[value[place] for value in values] for place in range(len(ValueKey._fields))]
