"""What the demo shows: headings, explanations, checked claims. Coloured on a terminal only."""

import os
import sys

_IS_COLOURED = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class ClaimFailedError(Exception):
    """Something that the demo tells is not so."""


def heading(text: str) -> None:
    """Begin a chapter."""
    print(f"\n{_paint('1;36', text)}")


def say(text: str) -> None:
    """Explain what is done."""
    print(f"  {text}")


def message(role: str, text: str) -> None:
    """Show a message of the conversation."""
    print(f"    {_paint('33', f'{role:>9}')}  {text}")


def claim(text: str, holds: bool) -> None:
    """Show that something holds; raises ClaimFailedError if it does not."""
    mark = _paint("32", "✓") if holds else _paint("1;31", "✗")
    print(f"  {mark} {text}", flush=True)
    if not holds:
        raise ClaimFailedError(text)


def refusal(error: Exception) -> None:
    """Show what the server answered."""
    print(f"    {_paint('35', type(error).__name__)}: {error}")


def _paint(colour: str, text: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if _IS_COLOURED else text
