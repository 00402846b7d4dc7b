"""Brings a database's schema to this release's: plain SQL files, forward only.

Each file is one transaction and its checksum is kept: a file that changed after
it was applied is refused, since two databases of the same version would differ.
Several runners at once are safe: each holds a lock for its transaction, and
sees what the one before it did. A file whose first line is `-- no-transaction`
holds one idempotent statement (CREATE INDEX CONCURRENTLY IF NOT EXISTS …); an index
that an earlier run left unfinished is made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import asyncpg

from session_service.postgres.pool import quoted

LOCK = (0x5E55, 1)
"""Advisory lock of migration runners, in the two-number space that session locks do not use."""

NO_TRANSACTION = "-- no-transaction"

POLL_INTERVAL = 0.1
"""Seconds between two tries to get the lock."""

CREATE_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
READ_HISTORY = "SELECT name, checksum FROM schema_migrations"
HAS_HISTORY = "SELECT to_regclass('schema_migrations') IS NOT NULL"
ADD_HISTORY = "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2) ON CONFLICT DO NOTHING"
TRY_LOCK = "SELECT pg_try_advisory_xact_lock($1, $2)"
ROLE_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"
UNFINISHED = """
SELECT x.indexrelid::regclass::text FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid
WHERE NOT x.indisvalid AND c.relname = $1
    AND c.relnamespace = (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = current_schema())
"""
MADE_INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS ([a-z0-9_]+)$", re.MULTILINE)
"""The first line of such a statement. Names here need no quotes."""
MAY_SET_ROLE = "SELECT pg_has_role(current_user, $1, 'MEMBER')"
GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    "REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM {role}",
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
    "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {role}",
)


class MigrationError(Exception):
    """The schema cannot be brought to this release's."""


class ChecksumMismatch(MigrationError):
    """A migration was changed after it had been applied."""


class SchemaOutdated(Exception):
    """The database's schema is older than this release needs. The message says what to run."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Whether the file runs inside one transaction."""
        return not self.sql.startswith(NO_TRANSACTION)


def load(folder: Traversable | None = None) -> list[Migration]:
    """This release's migrations, in order."""
    files = (folder or _folder()).iterdir()
    return [Migration(f.name, f.read_text("utf-8")) for f in sorted(files, key=_name) if f.name.endswith(".sql")]


async def migrate(dsn: str, *, role: str, migrations: list[Migration] | None = None) -> list[str]:
    """Applies what is missing and grants the runtime role its rights.

    Args:
        dsn: the database, as the owner of the schema.
        role: the runtime role; made (NOLOGIN) if there is none.
        migrations: this release's, unless a test gives others.

    Returns:
        The names of the migrations applied by this call, in order.

    Raises:
        MigrationError: a migration changed after it was applied, or one failed.
    """
    wanted = load() if migrations is None else migrations
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        applied = [m.name for m in wanted if await _apply(connection, dsn, m)]
        await _allow(connection, role)
    finally:
        await connection.close()
    return applied


async def require_current(dsn: str) -> None:
    """Raises SchemaOutdated, unless every migration of this release has been applied."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        history = await _history(connection) if await connection.fetchval(HAS_HISTORY) else {}
    except asyncpg.InsufficientPrivilegeError:
        history = {}  # a first migration is under way: its grants come last
    finally:
        await connection.close()
    missing = [m.name for m in load() if m.name not in history]
    if missing:
        raise SchemaOutdated(
            f"the database's schema lacks {', '.join(missing)}; "
            "run `session-service migrate --database-url URL` as the schema's owner first"
        )


@asynccontextmanager
async def _alone(connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[None]:
    """A transaction that no other runner's overlaps.

    Waits outside of any statement: a CREATE INDEX CONCURRENTLY of the runner that
    holds the lock waits for every statement that is older than it.
    """
    while True:
        async with connection.transaction():
            if await connection.fetchval(TRY_LOCK, *LOCK):
                yield
                return
        await asyncio.sleep(POLL_INTERVAL)


async def _apply(connection: asyncpg.Connection[asyncpg.Record], dsn: str, migration: Migration) -> bool:
    async with _alone(connection):
        await connection.execute(CREATE_HISTORY)
        known = (await _history(connection)).get(migration.name)
        if known is not None:
            _compare(migration, known)
            return False
        try:
            await _run(connection, dsn, migration)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{migration.name}: {error}") from error
        await connection.execute(ADD_HISTORY, migration.name, migration.checksum)
        return True


async def _run(connection: asyncpg.Connection[asyncpg.Record], dsn: str, migration: Migration) -> None:
    if migration.in_transaction:
        await connection.execute(migration.sql)
        return
    # On a connection of its own, while the first one holds the lock, but no
    # snapshot: the last query's stays open until a statement of the simple protocol.
    await connection.execute("SELECT")
    outside = await asyncpg.connect(dsn, timeout=10)
    try:
        await outside.execute(migration.sql)
        if made := MADE_INDEX.search(migration.sql):
            # One that was cut short is there for IF NOT EXISTS, but is not used.
            for index in await outside.fetch(UNFINISHED, made[1]):
                await outside.execute(f"DROP INDEX CONCURRENTLY {index[0]}")
                await outside.execute(migration.sql)
    finally:
        await outside.close()


async def _history(connection: asyncpg.Connection[asyncpg.Record]) -> Mapping[str, str]:
    return {row["name"]: row["checksum"] for row in await connection.fetch(READ_HISTORY)}


def _compare(migration: Migration, known: str) -> None:
    if migration.checksum != known:
        raise ChecksumMismatch(
            f"{migration.name} differs from what was applied to this database "
            f"(SHA-256 {migration.checksum[:12]}…, applied {known[:12]}…); "
            "an applied migration is never edited: restore the file and add a new one"
        )


async def _allow(connection: asyncpg.Connection[asyncpg.Record], role: str) -> None:
    async with _alone(connection):
        if not await connection.fetchval(ROLE_EXISTS, role):
            await _create_role(connection, role)
        if not await connection.fetchval(MAY_SET_ROLE, role):
            await connection.execute(f"GRANT {quoted(role)} TO CURRENT_USER")
        schema = quoted(await connection.fetchval("SELECT current_schema()"))
        for grant in GRANTS:
            await connection.execute(grant.format(schema=schema, role=quoted(role)))


async def _create_role(connection: asyncpg.Connection[asyncpg.Record], role: str) -> None:
    # Roles belong to the whole cluster: a runner on another database may make it at the same moment.
    with suppress(asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        async with connection.transaction():
            await connection.execute(f"CREATE ROLE {quoted(role)} NOLOGIN")


def _folder() -> Traversable:
    packaged = resources.files("session_service") / "migrations"
    if packaged.is_dir():
        return packaged
    # An editable install finds them in the repository.
    return Path(__file__).parents[3] / "migrations"


def _name(file: Traversable) -> str:
    return file.name
