"""Lists are printed page by page, and only as far as asked for."""

import pytest
from agent_sessions.cli.reading import _print_pages
from agent_sessions.pages import Page, Pager

PAGES = {"": Page(["a", "b"], "2"), "2": Page(["c", "d"], "3"), "3": Page(["e"], "")}


@pytest.mark.parametrize(
    ("limit", "printed", "fetched"),
    [
        (None, [["a", "b"], ["c", "d"], ["e"]], 3),
        (3, [["a", "b"], ["c"]], 2),
        (2, [["a", "b"]], 1),
        (9, [["a", "b"], ["c", "d"], ["e"]], 3),
    ],
)
async def test_pages(limit: int | None, printed: list[list[str]], fetched: int) -> None:
    tokens: list[str] = []
    pages: list[list[str]] = []

    async def fetch(token: str) -> Page[str]:
        tokens.append(token)
        return PAGES[token]

    count = await _print_pages(Pager(fetch), lambda items: pages.append(list(items)), limit)
    assert count == min(5, limit or 5)
    assert len(tokens) == fetched
    assert pages == printed


async def test_an_empty_list_prints_nothing() -> None:
    async def fetch(_: str) -> Page[str]:
        return Page([], "")

    assert await _print_pages(Pager(fetch), lambda _: pytest.fail("printed"), None) == 0
