"""Where an agent's rows live and which lock guards a session. Both are for ever: stored data rests on the first."""

import hashlib
from functools import lru_cache
from uuid import UUID

from session_service.sessions.model import SessionKey, Tenant

BUCKETS = 1024
"""Never changes: the bucket is part of every stored key."""

_REMEMBERED = 10_000


@lru_cache(maxsize=_REMEMBERED)
def bucket_of(tenant: Tenant, agent_id: str) -> int:
    """BLAKE2b of the length-prefixed (tenant, agent_id) modulo 1024."""
    return int.from_bytes(_hash(b"bucket", tenant.name, agent_id), "big") % BUCKETS


@lru_cache(maxsize=_REMEMBERED)
def lock_key(key: SessionKey) -> int:
    """The advisory lock that everyone takes who changes this session: a signed 64-bit number.

    Two sessions may share a key; they then only wait for each other.
    """
    return _signed(_hash(b"session", key.tenant.name, key.agent_id, key.session_name))


def naming_lock_key(tenant: Tenant, agent_id: str, request_id: UUID) -> int:
    """The lock that keeps two attempts of one server-named save from making two sessions."""
    return _signed(_hash(b"naming", tenant.name, agent_id, request_id.hex))


def _hash(purpose: bytes, *parts: str) -> bytes:
    whole = hashlib.blake2b(digest_size=8, person=purpose)
    for part in parts:
        encoded = part.encode()
        whole.update(len(encoded).to_bytes(8, "big"))
        whole.update(encoded)
    return whole.digest()


def _signed(digest: bytes) -> int:
    return int.from_bytes(digest, "big", signed=True)
