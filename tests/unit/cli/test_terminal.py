"""Text of others on a terminal: safe, and as wide as it is."""

import io

import pytest
from agent_sessions.cli.table import Column, Table, fitted
from agent_sessions.cli.terminal import one_line, printable, shorten, width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    "character", ["\x1b", "\x00", "\x07", "\r", "\n", "\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\ud800"]
)
def test_what_could_steer_a_terminal_is_replaced(character: str) -> None:
    assert printable(f"a{character}b") == "a\ufffdb"


@pytest.mark.parametrize("text", ["plain", "é ñ", "日本語", "👩‍👩‍👧", "a\u0301", "\u00a0"])
def test_what_is_harmless_stays(text: str) -> None:
    assert printable(text) == text


def test_one_line_joins_lines() -> None:
    assert one_line("a\n\tb\r\n c\x1b") == "a b c\ufffd"


@pytest.mark.parametrize(("text", "columns"), [("abc", 3), ("日本", 4), ("a\u0301", 1), ("", 0)])
def test_width(text: str, columns: int) -> None:
    assert width(text) == columns


@pytest.mark.parametrize(
    ("text", "limit", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("日本語", 4, "日…"), ("日本語", 6, "日本語")]
)
def test_shorten(text: str, limit: int, shown: str) -> None:
    assert shorten(text, limit) == shown
    assert width(shown) <= limit


@pytest.mark.parametrize(
    ("widths", "room", "fitting"),
    [
        ([5, 50], None, [5, 50]),
        ([5, 50], 57, [5, 50]),
        ([5, 50], 40, [5, 33]),
        ([40, 50], 42, [20, 20]),
        ([20, 20], 5, [8, 8]),
    ],
)
def test_the_widest_columns_give_way(widths: list[int], room: int | None, fitting: list[int]) -> None:
    assert fitted(widths, room) == fitting


def test_a_table_is_aligned_and_safe() -> None:
    stream = io.StringIO()
    table = Table(stream, Column("NAME"), Column("N", right=True), Column("LAST"))
    table.add([("日本", "1", "x"), ("a\x1bb", "22", "")])
    table.add([("a longer name", "3", "z" * 300)])
    assert stream.getvalue().splitlines() == [
        "NAME   N  LAST",
        "日本   1  x",
        "a\ufffdb   22",
        f"a longer name   3  {'z' * 300}",
    ]


def test_a_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    Table(stream, Column("A"), Column("B")).add([("x" * 100, "y" * 100), ("short", "")])
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) == 30
    assert "…" in lines[1]
    assert lines[2] == "short"
