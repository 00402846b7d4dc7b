"""Python values as JSON that reads back equal, types included, or not at all.

Plain JSON values (dict with string keys, list, str, int, finite float, bool,
None) are written as they are. Anything else that is supported makes the whole
document a tagged one, with a media type of its own:

    {"$datetime": "2026-01-31T09:30:00.000001+00:00"}   aware, always in UTC
    {"$timestamp": [seconds, nanos]}                    a protobuf Timestamp
    {"$bytes": base64}       {"$float": 16 hex digits}  NaN and the infinities, by their bits
    {"$tuple": [...]}        {"$set": [...]}            {"$frozenset": [...]}
    {"$dict": [[key, value], ...]}                      a dict with keys other than strings
    {"$enum": name}          {"$class": name}           {"$module": name}

In a tagged document a dict's key that begins with "$" is written with one more
"$", so that no dict reads as a tag. Subclasses (OrderedDict, named tuples, …)
are refused: they would come back as their base. The same value always gives the
same bytes, sets too, because the service recognises what it has by its bytes.
"""

import base64
import binascii
import json
import math
import struct
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from types import ModuleType
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from agent_sessions.errors import MalformedPayload, NotRegistered, StateError, UnsupportedValue
from agent_sessions.names import NameRegistry
from agent_sessions.timestamps import to_utc

JSON = "application/json"
TAGGED_JSON = "application/vnd.agent-sessions.tagged+json"

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

MAX_DEPTH = 64
"""Levels of containers in a value; a value that contains itself ends here, too."""


def encode_json(value: object, names: NameRegistry, path: str = "") -> tuple[str, bytes]:
    """Return the media type and the bytes. Raises UnsupportedValue or NotRegistered, naming the place."""
    if _is_plain(value, MAX_DEPTH):
        return JSON, _dumps(value, path)
    return TAGGED_JSON, _dumps(_Tagger(names).tag(value, path, MAX_DEPTH), path)


def decode_json(content_type: str, data: bytes, names: NameRegistry, path: str = "") -> Any:
    """Return the value. Raises MalformedPayload or NotRegistered, naming the place."""
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant)
        return value if content_type == JSON else _Untagger(names).untag(value, path)
    except StateError:
        raise
    except (ValueError, RecursionError) as error:
        raise MalformedPayload(f"not {content_type}: {error}", path) from error


def _dumps(value: object, path: str) -> bytes:
    try:
        return _ENCODER.encode(value).encode()
    except ValueError as error:  # an integer of more digits than Python converts
        raise UnsupportedValue(str(error), path) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_text(value: str) -> bool:
    """Tell whether the string is valid Unicode: half of a surrogate pair is not."""
    if value.isascii():  # known without a look at the text
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return _is_text(value)
    if kind is dict:
        # A loop, as the next: this runs for every value of every message, and all() costs twice as much.
        if depth <= 0:
            return False
        for key, item in value.items():
            if type(key) is not str or not _is_text(key) or not _is_plain(item, depth - 1):
                return False
        return True
    if kind is list:
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if kind is float:
        return math.isfinite(value)
    return kind in (int, bool, type(None))


class _Tagger:
    """Turns a value into one that is plain JSON."""

    def __init__(self, names: NameRegistry) -> None:
        self._names = names
        self._by_type: dict[type, Callable[[Any, str, int], Any]] = {
            str: self._text,
            float: self._float,
            dict: self._dict,
            list: self._items,
            tuple: lambda value, path, depth: {"$tuple": self._items(value, path, depth)},
            set: lambda value, path, depth: {"$set": self._sorted(value, path, depth)},
            frozenset: lambda value, path, depth: {"$frozenset": self._sorted(value, path, depth)},
            bytes: lambda value, path, depth: {"$bytes": base64.b64encode(value).decode()},
            datetime: lambda value, path, depth: {"$datetime": to_utc(value, path).isoformat()},
            Timestamp: lambda value, path, depth: {"$timestamp": [value.seconds, value.nanos]},
        }

    def tag(self, value: object, path: str, depth: int) -> Any:
        if value is None or type(value) in (bool, int):
            return value
        by_type = self._by_type.get(type(value))
        if by_type is not None:
            return by_type(value, path, depth)
        for tag, kind in (("$enum", Enum), ("$class", type), ("$module", ModuleType)):
            if isinstance(value, kind):
                return {tag: self._name(value, path)}
        raise UnsupportedValue(f"a {type(value).__qualname__} cannot be stored exactly", path)

    def _name(self, value: Any, path: str) -> str:
        try:
            return self._names.name_of(value)
        except NotRegistered as error:
            raise NotRegistered(error.name, path) from None

    def _text(self, value: str, path: str, depth: int) -> str:
        if not _is_text(value):
            raise UnsupportedValue("a string with half of a surrogate pair is not text", path)
        return value

    def _float(self, value: float, path: str, depth: int) -> Any:
        return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}

    def _dict(self, value: dict[Any, Any], path: str, depth: int) -> dict[str, Any]:
        _check_depth(path, depth)
        if all(type(key) is str for key in value):
            return {self._key(key, path): self.tag(item, _at(path, key), depth - 1) for key, item in value.items()}
        pairs = [
            [self.tag(key, f"{path} (key)", depth - 1), self.tag(item, _at(path, key), depth - 1)]
            for key, item in value.items()
        ]
        return {"$dict": pairs}

    def _key(self, key: str, path: str) -> str:
        self._text(key, f"{path} (key)", 0)
        return f"${key}" if key.startswith("$") else key

    def _items(self, value: Iterable[Any], path: str, depth: int) -> list[Any]:
        _check_depth(path, depth)
        return [self.tag(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]

    def _sorted(self, value: Iterable[Any], path: str, depth: int) -> list[Any]:
        return sorted(self._items(value, path, depth), key=lambda item: _dumps(item, path))


class _Untagger:
    """The inverse of _Tagger."""

    def __init__(self, names: NameRegistry) -> None:
        self._names = names
        self._by_tag: dict[str, Callable[[Any, str], Any]] = {
            "$datetime": lambda content, path: _aware(content),
            "$timestamp": lambda content, path: Timestamp(seconds=content[0], nanos=content[1]),
            "$bytes": lambda content, path: base64.b64decode(content, validate=True),
            "$float": lambda content, path: struct.unpack(">d", bytes.fromhex(content))[0],
            "$tuple": lambda content, path: tuple(self._items(content, path)),
            "$set": lambda content, path: set(self._items(content, path)),
            "$frozenset": lambda content, path: frozenset(self._items(content, path)),
            "$dict": lambda content, path: dict(self._items(pair, path) for pair in _list(content)),
            "$enum": lambda content, path: self._lookup(content, Enum),
            "$class": lambda content, path: self._lookup(content, type),
            "$module": lambda content, path: self._lookup(content, ModuleType),
        }

    def untag(self, value: Any, path: str) -> Any:
        if isinstance(value, list):
            return self._items(value, path)
        if not isinstance(value, dict):
            return value
        tag = next(iter(value), "")
        if not tag.startswith("$") or tag.startswith("$$"):
            return {self._key(key, path): self.untag(item, _at(path, key)) for key, item in value.items()}
        return self._tagged(tag, value, path)

    def _tagged(self, tag: str, value: dict[str, Any], path: str) -> Any:
        if tag not in self._by_tag or len(value) != 1:
            raise MalformedPayload(f"unknown tag {tag}", path)
        try:
            return self._by_tag[tag](value[tag], path)
        except NotRegistered as error:
            raise NotRegistered(error.name, error.path or path) from None
        except StateError:
            raise
        except (ValueError, TypeError, IndexError, KeyError, struct.error, binascii.Error) as error:
            raise MalformedPayload(f"not a {tag}: {error}", path) from error

    def _key(self, key: str, path: str) -> str:
        if not key.startswith("$"):
            return key
        if not key.startswith("$$"):
            raise MalformedPayload(f"unknown tag {key}", path)
        return key[1:]

    def _items(self, value: Any, path: str) -> list[Any]:
        return [self.untag(item, f"{path}[{index}]") for index, item in enumerate(_list(value))]

    def _lookup(self, name: Any, kind: type) -> Any:
        if not isinstance(name, str):
            raise TypeError("a name is a string")
        found = self._names.lookup(name)
        if not isinstance(found, kind):
            raise TypeError(f"{name} is registered for something else")
        return found


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _aware(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.utcoffset() is None:
        raise ValueError("no time zone")
    return moment


def _at(path: str, key: object) -> str:
    return f"{path}[{key!r}]" if len(repr(key)) <= 64 else f"{path}[…]"


def _check_depth(path: str, depth: int) -> None:
    if depth <= 0:
        shown = path if len(path) <= 64 else f"{path[:64]}…"
        raise UnsupportedValue(f"more than {MAX_DEPTH} levels deep, or a value that contains itself", shown)
