"""Buckets and locks: stored data rests on these numbers, so they may never change."""

from session_service.sessions.model import SessionKey, Tenant
from session_service.sessions.placement import BUCKETS, bucket_of, lock_key

DEFAULT = Tenant(1, "default", b"s")
RECORDED = [676, 620, 535]


def test_buckets_never_change() -> None:
    # Recorded when the first release was made.
    assert [bucket_of(DEFAULT, agent) for agent in ("ada", "bob", "каин")] == RECORDED
    assert BUCKETS == 1024


def test_buckets_are_evenly_used() -> None:
    used = [0] * BUCKETS
    for number in range(100_000):
        used[bucket_of(DEFAULT, f"agent-{number}")] += 1
    assert min(used) > 50
    assert max(used) < 160


def test_parts_are_kept_apart() -> None:
    one, other = SessionKey(DEFAULT, "ab", "c"), SessionKey(DEFAULT, "a", "bc")
    assert lock_key(one) != lock_key(other)
    assert -(2**63) <= lock_key(one) < 2**63
