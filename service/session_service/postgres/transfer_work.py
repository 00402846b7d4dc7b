"""The work of all uploads and downloads of a store: bounded, so that it leaves connections and processors to others."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

import asyncpg

from session_service.postgres.pool import Database

THREADS = 2
"""For digests and compression, which are large steps. More would each keep memory that they have freed."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class TransferWork:
    """Statements and computations, so many at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Half of the connections: the others serve everyone else.
        self._statements = asyncio.Semaphore(max(1, database.pool_size // 2))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="transfers")

    async def fetch(self, query: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        """As Database.fetch: the statement must be one that may be repeated."""
        async with self._statements:
            return await self._database.fetch(query, *arguments)

    async def compute(
        self, work: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> _Result:
        """What a function comes to, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))
