"""Text that other people wrote, made safe and fitting for a terminal."""

import shutil
import unicodedata
from typing import TextIO

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"

_UNSAFE_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Control characters (escape sequences begin with one), surrogates, line and paragraph separators."""
_BIDIRECTIONAL = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They change the order in which the rest of a line is shown."""


def printable(text: str) -> str:
    """Return the text with every character replaced that could steer a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(REPLACEMENT if _is_unsafe(character) else character for character in text)


def one_line(text: str) -> str:
    """Return the text safe and with every run of white space as one space."""
    return printable(" ".join(text.split()))


def width(text: str) -> int:
    """Return how many columns a printable text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def shorten(text: str, limit: int) -> str:
    """Return the text, or its beginning and an ellipsis, in at most `limit` (1 or more) columns."""
    if width(text) <= limit:
        return text
    kept, used = [], width(ELLIPSIS)
    for character in text:
        used += _columns(character)
        if used > limit:
            break
        kept.append(character)
    return "".join(kept) + ELLIPSIS


def columns(stream: TextIO) -> int | None:
    """Return the terminal's width; None if the stream is no terminal, where nothing is cut."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE_CATEGORIES or character in _BIDIRECTIONAL


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
