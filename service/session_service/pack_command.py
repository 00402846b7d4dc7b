"""`session-service pack`: packs until nothing is left."""

import time

import structlog

from session_service.config import Settings
from session_service.database_source import StartupError, connecting
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
        StartupError: the database cannot be used, or somebody else has taken this one's place.
    """
    assert settings.database_url is not None  # noqa: S101 - parse() demands it for this command
    with connecting(settings.database_url):
        await require_current(settings.database_url)
    database = await Database.connect(
        settings.database_url, role=settings.database_role, statement_timeout=settings.statement_timeout, pool_size=2
    )
    try:
        done, began = _Sum(), time.monotonic()
        rests = Rests(settings.pack_after, settings.pack_after)
        packer = Packer(database, rests, done, take_over=True)
        await _until_nothing_is_left(packer, done)
        await packer.release()
    finally:
        await database.close()
    _log.info("packed", **vars(done), seconds=round(time.monotonic() - began, 1))


async def _until_nothing_is_left(packer: Packer, done: _Sum) -> None:
    told = time.monotonic()
    while not packer.nothing_left:
        if not await packer.step() and not packer.holding:
            raise StartupError("somebody else packs by now")
        if time.monotonic() - told > PROGRESS:
            told = time.monotonic()
            _log.info("packing", **vars(done))
