"""The command `verify`: everything stored is checked, without a server having to stop."""

from collections.abc import Mapping
from typing import TextIO

import structlog

from session_service.config import Settings
from session_service.database_source import connecting
from session_service.postgres.migrate import require_current
from session_service.postgres.pool import Database
from session_service.postgres.verification.verifier import Verifier

_log = structlog.stdlib.get_logger(__name__)


async def verify(settings: Settings, output: TextIO) -> bool:
    """Write a line for each damage, and one that sums up; tell whether there was none."""
    assert settings.database_url is not None  # noqa: S101 - parse() demands it for this command
    with connecting(settings.database_url):
        await require_current(settings.database_url)
        database = await Database.connect(
            settings.database_url,
            role=settings.database_role,
            pool_size=1,
            statement_timeout=settings.statement_timeout,
        )
    try:
        verifier = Verifier(database.fetch, _tell)
        found = 0
        async for damage in verifier.damages():
            found += 1
            output.write(f"{damage}\n")
            output.flush()
    finally:
        await database.close()
    counts = ", ".join(f"{verifier.checked[table]} {table}" for table in sorted(verifier.checked))
    output.write(f"{found} damaged of {counts or 'nothing'}\n" if found else f"whole: {counts or 'nothing stored'}\n")
    output.flush()
    return found == 0


def _tell(bucket: int, checked: Mapping[str, int]) -> None:
    _log.info("verifying", bucket=bucket, buckets=1024, **checked)
