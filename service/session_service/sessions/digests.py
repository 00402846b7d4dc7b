"""Keyed fingerprints: what is equal is found without reading it, and equal texts of two tenants do not show.

All are BLAKE2b-128 under the tenant's secret, each purpose apart from the
others by BLAKE2b's personalisation. 128 bits under a key that no caller knows:
a chance collision among 2^40 digests has odds of about 2^-48.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

DIGEST_SIZE = 16
"""Bytes of every digest."""


def start(secret: bytes) -> bytes:
    """The running digest of no messages."""
    return hashlib.blake2b(b"", key=secret, digest_size=DIGEST_SIZE, person=b"transcript").digest()


def running(secret: bytes, messages: Iterable[bytes], digest: bytes) -> list[bytes]:
    """The running digest before, and after each of these messages.

    Two transcripts have equal digests at n exactly if their first n messages are equal.

    Args:
        secret: the tenant's.
        messages: any number.
        digest: the running digest of what is before them; start() if nothing is.
    """
    blake2b = hashlib.blake2b
    digests = [digest]
    for message in messages:
        digest = blake2b(digest + message, key=secret, digest_size=DIGEST_SIZE, person=b"transcript").digest()
        digests.append(digest)
    return digests


def of_value(secret: bytes, fragment: bytes) -> bytes:
    """The digest by which a big value is stored once."""
    return hashlib.blake2b(fragment, key=secret, digest_size=DIGEST_SIZE, person=b"value").digest()


def of_state(secret: bytes, small: bytes, kept: bytes, value_digests: Mapping[str, bytes]) -> bytes:
    """The digest of everything in a state but its messages; values are told by of_value()."""
    # The length keeps (small, kept) apart; digests all have one length.
    head = len(small).to_bytes(8, "big")
    values = (value_digests[name] for name in sorted(value_digests))
    whole = b"".join((head, small, len(kept).to_bytes(8, "big"), kept, *values))
    return hashlib.blake2b(whole, key=secret, digest_size=DIGEST_SIZE, person=b"state").digest()


def of_request(secret: bytes, fields: tuple[object, ...], contents: Sequence[bytes] = ()) -> bytes:
    """The fingerprint by which a repeated request_id is told from a reused one.

    Args:
        secret: the tenant's.
        fields: bytes, texts, numbers, None, or tuples of them: their repr() is unambiguous and stable.
        contents: long bytes. The fields must tell the length of each.
    """
    whole = b"".join((repr(fields).encode(), *contents))
    return hashlib.blake2b(whole, key=secret, digest_size=DIGEST_SIZE, person=b"request").digest()


def of_page(secret: bytes, fields: tuple[object, ...]) -> bytes:
    """Binds a page token to the arguments of its list; fields as in of_request()."""
    return hashlib.blake2b(repr(fields).encode(), key=secret, digest_size=DIGEST_SIZE, person=b"page").digest()


def etag(uid: UUID, revision: int, digest: bytes, state_digest: bytes) -> str:
    """An opaque fingerprint of one revision of one session."""
    whole = uid.bytes + revision.to_bytes(8, "big") + digest + state_digest
    return hashlib.blake2b(whole, digest_size=DIGEST_SIZE, person=b"etag").hexdigest()
