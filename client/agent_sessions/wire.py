"""Protobuf's wire format, as far as messages are put together from parts that are encoded already."""


def varint(number: int) -> bytes:
    """Encode a number from 0 to 2^64 - 1."""
    if number < 0x80:
        return _SMALL[number]
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def embedded(field_number: int, data: bytes) -> bytes:
    """Encode a field that holds a message, a string or bytes."""
    return b"%b%b%b" % (varint(field_number << 3 | 2), varint(len(data)), data)


def integer(field_number: int, number: int) -> bytes:
    """Encode a field that holds a number that is not negative."""
    return varint(field_number << 3) + varint(number)


_SMALL = [bytes((number,)) for number in range(0x80)]
