"""`session-service pack`: packs until nothing is left."""

import asyncio
import time

import structlog

from session_service.config import Settings
from session_service.database_source import connecting
from session_service.health import running
from session_service.postgres.cold_sessions import Rests
from session_service.postgres.migrate import require_current
from session_service.postgres.packer import Packer
from session_service.postgres.pool import Database

PROGRESS = 2.0
"""Seconds between two lines that tell how far it has come."""

_log = structlog.stdlib.get_logger(__name__)


class _Sum:
    """What was done so far; a PackingObserver."""

    def __init__(self) -> None:
        self.messages = self.segments = self.became = self.bytes_before = self.bytes_after = self.damaged = 0

    def packed(self, messages: int, segments: int, bytes_before: int, bytes_after: int, seconds: float) -> None:
        """Count it."""
        self.messages += messages
        self.segments += segments
        self.became += 1
        self.bytes_before += bytes_before
        self.bytes_after += bytes_after

    def packing_found_damage(self) -> None:
        """Count it."""
        self.damaged += 1


async def pack(settings: Settings) -> None:
    """Pack all that rests, to the end, in the place of the server that packs now.

    Raises:
        StartupError: the database cannot be used.
        Taken: another has begun to pack meanwhile.
    """
    assert settings.database_url is not None  # noqa: S101 - parse() demands it for this command
    with connecting(settings.database_url):
        await require_current(settings.database_url)
    database = await Database.connect(
        settings.database_url, role=settings.database_role, statement_timeout=settings.statement_timeout, pool_size=2
    )
    done, began = _Sum(), time.monotonic()
    packer = Packer(database, Rests(settings.pack_after, settings.pack_after), done, take_over=True)
    try:
        async with running(_tell(done)):
            left = await packer.finish()
    finally:
        await database.close()
    _log.info("packed", **vars(done), sessions_left=left, seconds=round(time.monotonic() - began, 1))


async def _tell(done: _Sum) -> None:
    while True:
        await asyncio.sleep(PROGRESS)
        _log.info("packing", **vars(done))
