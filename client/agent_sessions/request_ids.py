"""Ids of requests, and of the processes that make them."""

import os
import socket
import uuid
from functools import cache

_AT_ONCE = 256
"""Ids that are made together, which takes less time for each."""
_DASHES = (8, 13, 18, 23)
_DIGITS = [place for place in range(36) if place not in _DASHES]
"""Where an id's 32 digits stand."""
_VERSION, _VARIANT = 14, 19
"""Where the digits stand that tell the kind of the id."""
_TO_VARIANT = bytes.maketrans(b"0123456789abcdef", b"89ab89ab89ab89ab")
"""Keeps two random bits of the digit."""

_made: list[str] = []


def _forget() -> None:
    """Leave them to the parent; also those that it is making just now, for the list that it had before."""
    global _made
    _made = []


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def new_request_id() -> str:
    """Return a random UUID (RFC 4122, version 4)."""
    made = _made
    try:
        request_id = made.pop()
    except IndexError:
        request_id, *rest = _make()
        made.extend(rest)
    # Else a signal's handler has forked just now, and this is the child: the parent uses that id.
    return request_id if made is _made else new_request_id()


def _make() -> list[str]:
    digits = os.urandom(16 * _AT_ONCE).hex().encode()
    ids = bytearray(b"-" * 36 * _AT_ONCE)
    for source, place in enumerate(_DIGITS):  # this digit of all ids
        ids[place::36] = digits[source::32]
    ids[_VERSION::36] = b"4" * _AT_ONCE
    ids[_VARIANT::36] = ids[_VARIANT::36].translate(_TO_VARIANT)
    text = ids.decode()
    return [text[start : start + 36] for start in range(0, len(text), 36)]


def given_or_new(request_id: str | None) -> str:
    """Return the caller's own id, or a new one."""
    return new_request_id() if request_id is None else request_id


@cache
def process_client_id(pid: int) -> str:
    """Return one client_id for this process; its pid tells a fork from its parent."""
    return f"{socket.gethostname()[:64]}-{pid}-{uuid.uuid4().hex[:8]}"
