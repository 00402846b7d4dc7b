"""Ids of requests, and of the processes that make them."""

import os
import socket
import uuid
from functools import cache

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit that holds an id's variant, with that set and its other two bits kept."""


def new_request_id() -> str:
    """Return a random UUID (RFC 4122, version 4); `str(uuid.uuid4())` takes twice as long."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def given_or_new(request_id: str | None) -> str:
    """Return the caller's own id, or a new one."""
    return new_request_id() if request_id is None else request_id


@cache
def process_client_id(pid: int) -> str:
    """Return one client_id for this process; its pid tells a fork from its parent."""
    return f"{socket.gethostname()[:64]}-{pid}-{uuid.uuid4().hex[:8]}"
