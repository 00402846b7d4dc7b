"""Protobuf's wire format, as far as messages are put together from parts that are encoded already."""

from collections.abc import Callable

_FEW = 0x4000
"""Numbers below take two bytes at most; most lengths do."""


class _Varints(dict[int, bytes]):
    """Numbers from 0 to 2^64 - 1, encoded: seven bits a byte, the lowest first, and whether more follow.

    Looked up, not called: a save needs six of them. Those of few bytes are kept.
    """

    def __missing__(self, number: int) -> bytes:
        encoded = bytes((number,)) if number < 0x80 else bytes((number & 0x7F | 0x80,)) + self[number >> 7]
        if number < _FEW:
            self[number] = encoded
        return encoded


varint: Callable[[int], bytes] = _Varints().__getitem__
"""Encode a number from 0 to 2^64 - 1."""


def bytes_tag(field_number: int) -> bytes:
    """Return what stands before a field that holds a message, a string or bytes."""
    return varint(field_number << 3 | 2)


def number_tag(field_number: int) -> bytes:
    """Return what stands before a field that holds a number."""
    return varint(field_number << 3)


def embedded(tag: bytes, data: bytes) -> bytes:
    """Encode a field that holds a message, a string or bytes."""
    return tag + varint(len(data)) + data


def integer(tag: bytes, number: int) -> bytes:
    """Encode a field that holds a number that is not negative."""
    return tag + varint(number)
