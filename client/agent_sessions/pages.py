"""Lists that are read page by page, and only as far as the caller goes."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page of a list."""

    items: Sequence[Item]
    next_page_token: str
    """For the next page; empty when there is none."""


class Pager(Generic[Item]):
    """A list on the server. Nothing is asked for before the first item or page is.

        async for session in client.list_sessions("agent"): ...
        page = await client.list_sessions("agent", page_size=20).page()

    Each iteration begins at the first page anew. The timeout of the call that made
    the pager holds for each page.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[Page[Item]]]) -> None:
        self._fetch = fetch

    async def page(self, page_token: str = "") -> Page[Item]:
        """Return one page: the first, or the one a `next_page_token` stands for."""
        return await self._fetch(page_token)

    async def pages(self, page_token: str = "") -> AsyncIterator[Page[Item]]:
        """Iterate over the pages from there on."""
        while True:
            page = await self._fetch(page_token)
            yield page
            page_token = page.next_page_token
            if not page_token:
                return

    async def __aiter__(self) -> AsyncIterator[Item]:
        async for page in self.pages():
            for item in page.items:
                yield item
