"""Protobuf's wire format, as far as messages are put together from parts that are encoded already."""

_LAST = [bytes((number,)) for number in range(0x80)]
_MORE = [bytes((number | 0x80,)) for number in range(0x80)]
"""A varint's bytes: seven bits each, the lowest first, and whether more follow."""


def varint(number: int) -> bytes:
    """Encode a number from 0 to 2^64 - 1."""
    if number < 0x80:
        return _LAST[number]
    if number < 0x4000:  # most lengths are
        return _MORE[number & 0x7F] + _LAST[number >> 7]
    return _MORE[number & 0x7F] + varint(number >> 7)


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
