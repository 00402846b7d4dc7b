"""NOTIFY and LISTEN: hints that the log has grown, between servers. What matters is found without them, only later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import asyncpg
import structlog

from session_service.postgres.pool import Database

CHANNEL = "session_events"
SAVES, OTHERS = "saves", "others"
"""Payloads: what was written."""

SAVES_APART = 0.1
"""Seconds between two notifications of nothing but saves. A notification takes a lock of the whole cluster, and wakes
every server: the more often, the more of the savers' time it takes. The first save after a pause is told at once, and
so is whatever is not a save."""

RETRY_PAUSE = 1.0
"""Seconds until a lost connection is made again."""

CHECK_EVERY = 10.0
"""Seconds between looks whether the listening connection is alive."""

NOTIFY = "SELECT pg_notify($1, $2)"

_log = structlog.stdlib.get_logger(__name__)


class Notifier:
    """Tells the other servers, over a connection of its own, never in the transaction that wrote.

    Whatever comes while one notification is under way goes out as one.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: set[str] = set()
        self._arrived = asyncio.Event()
        self._urgent = asyncio.Event()
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    @property
    def pid(self) -> int | None:
        """Of the backend that notifies; of one that is gone, somebody else may have it."""
        connection = self._connection
        return None if connection is None or connection.is_closed() else connection.get_server_pid()

    def tell(self, *, only_saves: bool) -> None:
        """Something was written, and committed."""
        self._pending.add(SAVES if only_saves else OTHERS)
        self._arrived.set()
        if not only_saves:
            self._urgent.set()

    async def run(self) -> None:
        """Tell, until cancelled."""
        try:
            while True:
                await self._arrived.wait()
                # OTHERS tells enough.
                payload = OTHERS if OTHERS in self._pending else SAVES
                self._pending.clear()
                self._arrived.clear()
                self._urgent.clear()
                await self._notify(payload)
                with suppress(TimeoutError):
                    async with asyncio.timeout(SAVES_APART):
                        await self._urgent.wait()
        finally:
            if self._connection is not None:
                self._connection.terminate()

    async def _notify(self, payload: str) -> None:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._database.open(direct=True)
                # A hint need not survive anything.
                await self._connection.execute("SET synchronous_commit = off")
            await self._connection.fetch(NOTIFY, CHANNEL, payload)
        except Exception as error:
            _log.debug("no notification was sent", problem=type(error).__name__)
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            await asyncio.sleep(RETRY_PAUSE)


class Listener:
    """Hears what the servers tell, over a connection of its own."""

    def __init__(self, database: Database, heard: Callable[[bool], None], own: Notifier | None = None) -> None:
        """Listens for others than `own`, who knows already.

        `heard`: called with whether nothing but saves was written; also when something may have been missed.
        """
        self._database = database
        self._heard = heard
        self._own = own

    async def run(self) -> None:
        """Listen, until cancelled."""
        while True:
            connection = None
            try:
                connection = await self._database.open(direct=True)
                await connection.add_listener(CHANNEL, self._on_notification)
                self._heard(False)
                while True:
                    await asyncio.sleep(CHECK_EVERY)
                    await connection.execute("SELECT 1")
            except Exception as error:
                _log.debug("not listening", problem=type(error).__name__)
                await asyncio.sleep(RETRY_PAUSE)
            finally:
                if connection is not None:
                    connection.terminate()

    def _on_notification(self, _connection: Any, pid: int, _channel: str, payload: object) -> None:
        if self._own is None or pid != self._own.pid:
            self._heard(payload == SAVES)
