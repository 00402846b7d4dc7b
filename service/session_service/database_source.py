"""Where the database comes from: one that is given, or one of our own."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg
import structlog

from session_service.config import Settings
from session_service.config_values import without_password
from session_service.postgres.migrate import migrate, require_current

_log = structlog.stdlib.get_logger(__name__)


class StartupError(Exception):
    """The command cannot do its work. The message tells why, and holds no password."""


@contextmanager
def connecting(url: str) -> Iterator[None]:
    """Turn what the driver raises into a StartupError."""
    try:
        yield
    except (OSError, asyncpg.PostgresError) as error:
        told = str(error) or type(error).__name__
    except (asyncpg.InterfaceError, ValueError) as error:
        told = type(error).__name__  # its text may repeat parts of the URL
    else:
        return
    raise StartupError(f"cannot use the database {without_password(url)}: {told}")


@asynccontextmanager
async def database_url(settings: Settings) -> AsyncIterator[str]:
    """Give the URL, as the owner, of a database whose schema is current."""
    if settings.database_url is None:
        async with _embedded(settings) as dsn:
            yield dsn
        return
    _log.info("using PostgreSQL", url=without_password(settings.database_url))
    with connecting(settings.database_url):
        await require_current(settings.database_url)
    yield settings.database_url


@asynccontextmanager
async def _embedded(settings: Settings) -> AsyncIterator[str]:
    # Imported here: an installation without the extra `embedded` serves, too.
    from session_service.postgres.embedded import EmbeddedPostgres

    postgres = EmbeddedPostgres(settings.data_dir)
    dsn = await postgres.start()
    try:
        _log.info("PostgreSQL is embedded", data_dir=str(settings.data_dir), url=dsn, pid=postgres.pid)
        for name in await migrate(dsn, role=settings.database_role):
            _log.info("migration applied", migration=name)
        yield dsn
    finally:
        await postgres.stop()
