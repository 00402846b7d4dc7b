"""Group commit: what arrives while a flush is under way goes out together in the next one.

One flusher with a connection of its own. No timer: a lone save is flushed at
once (a window would only add to its latency), and under load the flush itself
is the window. A caller that gives up ends its own wait only; a flush goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import asyncpg
import structlog

from session_service.postgres.errors import is_connection_lost, to_domain
from session_service.postgres.operations import Operation, SaveOperation, execute
from session_service.postgres.pool import CLOSE_TIMEOUT, Database
from session_service.sessions.errors import ShuttingDown, Unavailable
from session_service.sessions.observer import Observer, SilentObserver

_ENOUGH = 4
"""Operations that are flushed without looking for more: of what fewer cost, most is the statement's own.
Under load it is half of what went out last: so much will be ready again, while the other half is on its way."""

_QUIET_ROUNDS = 2
"""Rounds of the event loop in which nothing came, before fewer operations are flushed."""

_log = structlog.stdlib.get_logger(__name__)

MAX_ITEMS = 128
"""Operations in one transaction: bounds its length, and what one failure makes go singly."""

MAX_BYTES = 8 << 20
"""Payload bytes in one transaction, or one larger operation: bounds its length, which readers of the log wait for."""


class Outcome(Protocol):
    """What a flush tells how an operation ended. Futures are such; others spare a round of the event loop."""

    def done(self) -> bool:
        """Whether nobody wants the operation any more."""

    def set_result(self, row: asyncpg.Record, /) -> None:
        """It was carried out; its result row. Must not raise."""

    def set_exception(self, error: Exception, /) -> None:
        """It failed. Must not raise."""


class _Waiting(NamedTuple):
    operation: Operation
    size: int
    outcome: Outcome


class WriteBatcher:
    """Carries operations to PostgreSQL, many in one transaction."""

    def __init__(self, database: Database, observer: Observer | None = None) -> None:
        self._database = database
        self._observer = observer or SilentObserver()
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._closing = False
        self._last_size = 0
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._flusher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the flusher."""
        self._flusher = asyncio.create_task(self._run(), name="write-batcher")

    async def close(self) -> None:
        """Flushes what waits, then stops."""
        self._closing = True
        self._arrived.set()
        if self._flusher:
            await self._flusher
        await self._disconnect()

    def submit(self, operation: Operation) -> asyncio.Future[asyncpg.Record]:
        """Carries out one operation; the future holds its result row.

        Operations on one session are carried out in the order of submission.

        Raises, the first at once:
            ShuttingDown, DatabaseUnavailable, Contention: the operation may have been carried out only in
                the second case.
        """
        result: asyncio.Future[asyncpg.Record] = asyncio.get_running_loop().create_future()
        self.submit_to(result, operation)
        return result

    def submit_to(self, outcome: Outcome, operation: Operation) -> None:
        """Carries out one operation, as submit() does. Raises: ShuttingDown; the outcome is told all else."""
        if self._closing:
            raise ShuttingDown("the server is shutting down")
        self._queue.append(_Waiting(operation, operation.stored_bytes, outcome))
        self._arrived.set()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            while self._queue:
                await self._gather()
                batch = self._next_batch()
                self._last_size = len(batch)
                try:
                    if batch:  # else all of them were given up
                        await self._flush(batch)
                except Exception as error:
                    # A mistake of this program. It must not end the flusher: every save would wait for ever.
                    _log.exception("a flush failed", operations=len(batch))
                    _fail(batch, error)
            self._arrived.clear()
            if self._closing:
                return

    async def _gather(self) -> None:
        """Let calls that are ready just now come along: each takes a few rounds of the event loop to get here.

        No timer: when the loop has nothing else to do, a lone save goes at once.
        """
        if self._last_size == 1 and len(self._queue) == 1:
            return  # there is one caller, who waits for this
        quiet, before = 0, 0
        enough = max(_ENOUGH, self._last_size // 2)
        while quiet < _QUIET_ROUNDS and len(self._queue) < enough:
            quiet = 0 if len(self._queue) > before else quiet + 1
            before = len(self._queue)
            await asyncio.sleep(0)

    def _next_batch(self) -> list[_Waiting]:
        """From the front of the queue: one kind, each session at most once, within the caps."""
        batch: list[_Waiting] = []
        later: deque[_Waiting] = deque()
        seen: set[int] = set()
        size = 0
        while self._queue and len(batch) < MAX_ITEMS:
            waiting = self._queue.popleft()
            if waiting.outcome.done():
                continue
            operation = waiting.operation
            fits = not batch or (type(operation) is type(batch[0].operation) and size + waiting.size <= MAX_BYTES)
            if fits and seen.isdisjoint(operation.lock_keys):
                batch.append(waiting)
                size += waiting.size
            else:
                later.append(waiting)
            # Also of one that must wait: what comes after it on the same session must not pass it.
            seen.update(operation.lock_keys)
        self._queue.extendleft(reversed(later))
        return batch

    async def _flush(self, batch: Sequence[_Waiting]) -> None:
        begin = time.perf_counter()
        try:
            rows = await self._execute([waiting.operation for waiting in batch])
        except Exception as error:
            if len(batch) == 1 or isinstance(to_domain(error), Unavailable):
                # Nobody's fault, and each may try again. Singly, each would wait for the same timeout in turn.
                _fail(batch, error)
                return
            # Whatever it was, one item caused it: the others must not suffer.
            for waiting in batch:
                await self._flush([waiting])
            return
        self._observer.flushed(len(batch), time.perf_counter() - begin)
        for waiting, row in zip(batch, rows, strict=True):
            if not waiting.outcome.done():
                waiting.outcome.set_result(row)
        # After the callers: what follows the log begins to read it at once, and they would wait for that.
        self._database.on_event(isinstance(batch[0].operation, SaveOperation))

    async def _execute(self, operations: Sequence[Operation]) -> Sequence[asyncpg.Record]:
        """Repeats once over a new connection: every operation carries a request_id, so nothing is done twice."""
        try:
            return await execute(await self._connected(), operations, wait=False)
        except Exception as error:
            if isinstance(error, asyncpg.PostgresError) and not is_connection_lost(error):
                raise
            self._drop()
            if not is_connection_lost(error):
                raise
        try:
            return await execute(await self._connected(), operations, wait=False)
        except Exception as error:
            if not isinstance(error, asyncpg.PostgresError) or is_connection_lost(error):
                self._drop()
            raise

    async def _connected(self) -> asyncpg.Connection[asyncpg.Record]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._database.open()
        return self._connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._connection.close()
        self._drop()

    def _drop(self) -> None:
        """Without a word to PostgreSQL, which may not listen any more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for waiting in batch:
        if not waiting.outcome.done():
            # A new exception for each caller: one object raised in many tasks gathers their tracebacks.
            refusal = to_domain(error) or RuntimeError("a flush failed")
            refusal.__cause__ = error
            waiting.outcome.set_exception(refusal)
            if isinstance(waiting.outcome, asyncio.Future):
                waiting.outcome.exception()  # marks it as seen, if the caller has gone
