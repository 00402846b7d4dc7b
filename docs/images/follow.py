"""Draws follow-light.svg and follow-dark.svg, the README's picture of a restore that a worker follows.

$ .venv/bin/python docs/images/follow.py
"""

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 372
TOP, BOTTOM = 58, 362
OPERATOR, SERVICE, WORKER = 100, 380, 660
"""Where their lines stand."""
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Theme:
    """Colours for one background; the background itself is left out."""

    name: str
    text: str
    faint: str
    line: str
    ours: str


THEMES = (
    Theme("light", text="#1f2328", faint="#59636e", line="#afb8c1", ours="#0969da"),
    Theme("dark", text="#e6edf3", faint="#9198a1", line="#484f58", ours="#58a6ff"),
)


def draw(theme: Theme) -> str:
    """Return the picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="{FONT}" font-size="13">',
        "<title>An operator restores a revision, and the worker goes on from it</title>",
        *_lifeline(theme, OPERATOR, "operator", "sessionctl, grpcurl"),
        *_lifeline(theme, SERVICE, "session service", "any replica", box=True),
        *_lifeline(theme, WORKER, "worker", "LiveAgent"),
        *_arrow(theme, 82, WORKER, SERVICE, "WatchSessions", "a stream that stays"),
        *_arrow(theme, 130, OPERATOR, SERVICE, "RestoreSession", "revision 2"),
        *_arrow(theme, 178, SERVICE, WORKER, "RESTORED", "revision 2, resume token", strong=True),
        *_arrow(theme, 226, WORKER, SERVICE, "GetRevision", "a read, which is no event itself"),
        *_note(theme, 258, "the state is replaced", "llm_provider and auth_context stay"),
        *_arrow(theme, 336, WORKER, SERVICE, "SaveSession", "revision 5, a delta on revision 2"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _lifeline(theme: Theme, x: int, name: str, what: str, *, box: bool = False) -> list[str]:
    colour = theme.ours if box else theme.text
    return [
        f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{BOTTOM}" stroke="{theme.line}" stroke-width="2"/>',
        _text(x, 24, name, colour, size=15, weight=600),
        _text(x, 42, what, theme.faint),
    ]


def _arrow(theme: Theme, y: int, start: int, end: int, name: str, what: str, *, strong: bool = False) -> list[str]:
    colour = theme.ours if strong else theme.text
    towards = 1 if end > start else -1
    tip, middle = end - 3 * towards, (start + end) // 2
    head = f"{tip},{y} {tip - 9 * towards},{y - 5} {tip - 9 * towards},{y + 5}"
    return [
        f'<line x1="{start + 3 * towards}" y1="{y}" x2="{tip - 8 * towards}" y2="{y}" stroke="{colour}" '
        'stroke-width="1.5"/>',
        f'<polygon points="{head}" fill="{colour}"/>',
        _text(middle, y - 7, name, colour, weight=600),
        _text(middle, y + 16, what, theme.faint, size=12),
    ]


def _note(theme: Theme, y: int, first: str, second: str) -> list[str]:
    left, width, height = WORKER - 250, 240, 46
    middle = left + width // 2
    return [
        f'<rect x="{left}" y="{y}" width="{width}" height="{height}" rx="6" fill="none" stroke="{theme.ours}" '
        'stroke-width="1.5"/>',
        f'<line x1="{left + width}" y1="{y + height // 2}" x2="{WORKER - 1}" y2="{y + height // 2}" '
        f'stroke="{theme.ours}" stroke-width="1.5"/>',
        _text(middle, y + 19, first, theme.text, weight=600),
        _text(middle, y + 37, second, theme.faint, size=12),
    ]


def _text(x: int, y: int, text: str, colour: str, *, size: int = 13, weight: int = 400) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="middle" fill="{colour}" font-size="{size}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )


if __name__ == "__main__":
    for theme in THEMES:
        Path(__file__).with_name(f"follow-{theme.name}.svg").write_text(draw(theme))
