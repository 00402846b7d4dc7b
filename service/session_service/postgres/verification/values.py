"""Checks big values."""

from collections.abc import Mapping

import asyncpg

from session_service.codec import compression
from session_service.postgres import checksums
from session_service.postgres.search import ValueKey
from session_service.postgres.states import Fetch
from session_service.postgres.verification.damage import NO_TENANT, Findings
from session_service.sessions import digests
from session_service.sessions.model import Tenant

READ_TOGETHER = 16
"""Rows, each of up to a request's size."""

LARGEST = 256 << 20
"""Bytes of a value at most, which is a request's at most: a damaged size must not take all memory."""

# $1 bucket, $2 $3 $4 value after which to read, $5 most.
READ = """
    SELECT tenant_id, agent_id, digest, raw_size, codec, payload, checksum FROM state_values
    WHERE bucket = $1 AND (tenant_id, agent_id, digest) > ($2, $3, $4)
    ORDER BY tenant_id, agent_id, digest LIMIT $5
"""
# $1 bucket, $2 $3 $4 value.
READ_AGAIN = """
    SELECT tenant_id, agent_id, digest, raw_size, codec, payload, checksum FROM state_values
    WHERE bucket = $1 AND tenant_id = $2 AND agent_id = $3 AND digest = $4
"""

FIRST = ValueKey(-1, "", b"")


async def check(
    fetch: Fetch, bucket: int, after: ValueKey, tenants: Mapping[int, Tenant], findings: Findings
) -> tuple[int, ValueKey | None, Mapping[ValueKey, ValueKey]]:
    """Checks the values that follow one.

    Returns:
        How many they are; the last of them, None if none follows; and, of damaged rows that hold what belongs under
        another key, the row's key by that one.
    """
    rows = await fetch(READ, bucket, *after, READ_TOGETHER)
    strayed: dict[ValueKey, ValueKey] = {}
    for row in rows:
        key = ValueKey(*row[:3])
        if _wrong(row, tenants) is None:
            continue
        again = await fetch(READ_AGAIN, bucket, *key)
        if again and (what := _wrong(again[0], tenants)):
            findings.add("state_values", key, what)
            strayed.update((right, key) for right in _right_keys(again[0], tenants))
    last = ValueKey(*rows[-1][:3]) if len(rows) == READ_TOGETHER else None
    return len(rows), last, strayed


def _wrong(row: asyncpg.Record, tenants: Mapping[int, Tenant]) -> str | None:
    """What is wrong with a row; None: nothing."""
    tenant_id, _, digest, raw_size, codec, payload, checksum = row
    tenant = tenants.get(tenant_id)
    if tenant is None:
        return NO_TENANT
    if checksums.of_value(raw_size, codec, digest, payload) != checksum:
        return "checksum"
    try:
        raw = compression.unpack(codec, raw_size, payload)
    except compression.Damaged as error:
        return str(error)
    return None if digests.of_value(tenant.digest_secret, raw) == digest else "digest of the content"


def _right_keys(row: asyncpg.Record, tenants: Mapping[int, Tenant]) -> list[ValueKey]:
    """The key that a row's content belongs under, if it can be read."""
    tenant_id, agent_id, _, raw_size, codec, payload, _ = row
    if not 0 <= raw_size <= LARGEST:
        return []
    try:
        raw = compression.unpack(codec, raw_size, payload)
    except compression.Damaged:
        return []
    tenant = tenants.get(tenant_id)
    return [ValueKey(tenant_id, agent_id, digests.of_value(tenant.digest_secret, raw))] if tenant else []
