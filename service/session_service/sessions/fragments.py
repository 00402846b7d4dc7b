"""Pieces of AgentState's wire form, joined and split without a protobuf library.

A protobuf message is a run of fields, each a tag followed by its data, and a
parser accepts them in any order. So stored pieces become an AgentState again by
joining their bytes. Only length-delimited fields occur here
(https://protobuf.dev/programming-guides/encoding/).
"""

from collections.abc import Iterable, Iterator

MESSAGE_TAG = b"\x12"
"""Field 2 of AgentState, message_history, length-delimited."""


class MalformedFragment(ValueError):
    """Bytes that are not a run of framed messages."""


def frame(message: bytes) -> bytes:
    """One message as an element of message_history."""
    return MESSAGE_TAG + varint(len(message)) + message


def join(messages: Iterable[bytes]) -> bytes:
    """Messages as a run of message_history."""
    return b"".join(map(frame, messages))


def framed_size(message: bytes) -> int:
    """Bytes that frame(message) takes."""
    return 1 + max(1, -(-len(message).bit_length() // 7)) + len(message)


def split(payload: bytes) -> Iterator[bytes]:
    """The messages of a run that join() made.

    Raises:
        MalformedFragment: the payload is not such a run.
    """
    position = 0
    while position < len(payload):
        if payload[position : position + 1] != MESSAGE_TAG:
            raise MalformedFragment("not a message")
        size, start = _read_varint(payload, position + 1)
        position = start + size
        if position > len(payload):
            raise MalformedFragment("cut off")
        yield payload[start:position]


def offset_of(payload: bytes, count: int) -> int:
    """Where, in a run that join() made, the message after the first `count` ones begins.

    Raises:
        MalformedFragment: the payload holds fewer messages, or is not such a run.
    """
    position = 0
    for _ in range(count):
        if payload[position : position + 1] != MESSAGE_TAG:
            raise MalformedFragment("not a message")
        size, start = _read_varint(payload, position + 1)
        position = start + size
    if position > len(payload):
        raise MalformedFragment("cut off")
    return position


def fields(fragment: bytes) -> Iterator[tuple[int, bytes]]:
    """The top-level fields of any wire form: number, and the field with its tag.

    Raises:
        MalformedFragment: the bytes are no wire form.
    """
    position = 0
    while position < len(fragment):
        tag, start = _read_varint(fragment, position)
        match tag & 7:
            case 0:
                _, end = _read_varint(fragment, start)
            case 1:
                end = start + 8
            case 2:
                size, start = _read_varint(fragment, start)
                end = start + size
            case 5:
                end = start + 4
            case _:
                raise MalformedFragment("unknown wire type")
        if end > len(fragment):
            raise MalformedFragment("cut off")
        yield tag >> 3, fragment[position:end]
        position = end


def value_name(field: bytes) -> str:
    """The name in a field that holds one value: a map entry, whose first field is the name.

    Raises:
        MalformedFragment: it is none.
    """
    _, start = _read_varint(field, 0)
    _, start = _read_varint(field, start)
    for number, part in fields(field[start:]):
        if number == 1:
            _, begin = _read_varint(part, 0)
            _, begin = _read_varint(part, begin)
            return part[begin:].decode()
    return ""


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(payload: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while position < len(payload) and shift < 70:
        byte = payload[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
    raise MalformedFragment("bad length")
