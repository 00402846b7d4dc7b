"""Ids of requests."""

import os

_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The digit that holds an id's variant, with that set and its other two bits kept."""


def new_request_id() -> str:
    """Return a random UUID (RFC 4122, version 4); `str(uuid.uuid4())` takes twice as long."""
    digits = os.urandom(16).hex()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
