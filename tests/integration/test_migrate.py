"""The migration runner on a real PostgreSQL."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from session_service.postgres import migrate as runner
from session_service.postgres.migrate import ChecksumMismatch, Migration, MigrationError, SchemaOutdated, migrate

from tests.fixtures.postgres import ROLE


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def test_everything_is_applied_once(empty_database_url: str) -> None:
    names = [m.name for m in runner.load()]
    assert await migrate(empty_database_url, role=ROLE) == names
    assert await migrate(empty_database_url, role=ROLE) == []
    history = await fetch(empty_database_url, "SELECT name FROM schema_migrations ORDER BY name")
    assert [row["name"] for row in history] == names
    await runner.require_current(empty_database_url)


async def test_several_runners_at_once_apply_everything_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url, role=ROLE) for _ in range(8)))
    assert sorted(name for names in applied for name in names) == [m.name for m in runner.load()]


async def test_a_changed_migration_is_refused_and_changes_nothing(empty_database_url: str) -> None:
    await migrate(empty_database_url, role=ROLE, migrations=[Migration("0001_a.sql", "CREATE TABLE a (n int)")])
    changed = [Migration("0001_a.sql", "CREATE TABLE b (n int)"), Migration("0002_c.sql", "CREATE TABLE c (n int)")]
    with pytest.raises(ChecksumMismatch, match=r"0001_a\.sql"):
        await migrate(empty_database_url, role=ROLE, migrations=changed)
    tables = await fetch(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert {row["tablename"] for row in tables} == {"a", "schema_migrations"}


async def test_a_migration_that_fails_leaves_nothing(empty_database_url: str) -> None:
    broken = [Migration("0001_a.sql", "CREATE TABLE a (n int); SELECT 1/0")]
    with pytest.raises(MigrationError, match=r"0001_a\.sql"):
        await migrate(empty_database_url, role=ROLE, migrations=broken)
    assert (await fetch(empty_database_url, "SELECT to_regclass('a') AS a"))[0]["a"] is None
    fixed = [Migration("0001_a.sql", "CREATE TABLE a (n int)")]
    assert await migrate(empty_database_url, role=ROLE, migrations=fixed) == ["0001_a.sql"]


async def test_a_statement_that_may_not_run_in_a_transaction(empty_database_url: str) -> None:
    migrations = [
        Migration("0001_a.sql", "CREATE TABLE a (n int)"),
        Migration("0002_i.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON a (n)"),
    ]
    async with asyncio.timeout(30):
        applied = await asyncio.gather(
            *(migrate(empty_database_url, role=ROLE, migrations=migrations) for _ in range(3))
        )
    assert sorted(name for names in applied for name in names) == ["0001_a.sql", "0002_i.sql"]
    valid = await fetch(empty_database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass")
    assert valid[0]["indisvalid"]


INDEXES = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE NOT indisprimary"


@pytest.mark.parametrize("schema", ["public", "My schema", 'a.b"c'])
async def test_an_index_whose_making_was_cut_short_is_made_anew(empty_database_url: str, schema: str) -> None:
    table = Migration("0001_a.sql", "CREATE TABLE a (n int); INSERT INTO a SELECT generate_series(1, 100)")
    make = Migration("0002_i.sql", "-- no-transaction\n-- other\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i\nON a (n);")
    owner = await asyncpg.connect(empty_database_url)
    quoted = schema.replace('"', '""')
    await owner.execute(f'CREATE SCHEMA IF NOT EXISTS "{quoted}"')
    name = await owner.fetchval("SELECT quote_ident(current_database())")
    await owner.execute(f'ALTER DATABASE {name} SET search_path = "{quoted}"')
    await owner.close()
    await migrate(empty_database_url, role=ROLE, migrations=[table])
    owner = await asyncpg.connect(empty_database_url)
    await owner.execute("CREATE INDEX i ON a (n); CREATE INDEX other ON a (n)")
    # As CREATE INDEX CONCURRENTLY leaves it that is stopped; IF NOT EXISTS then takes it for made.
    broken = "UPDATE pg_index SET indisvalid = false WHERE indexrelid IN ('i'::regclass, 'other'::regclass)"
    await owner.execute(broken)
    await migrate(empty_database_url, role=ROLE, migrations=[table, make])
    found = await owner.fetch(f"{INDEXES} AND indrelid = 'a'::regclass ORDER BY relname")
    assert [tuple(row) for row in found] == [("i", True), ("other", False)], "somebody else's is left alone"
    await owner.close()


def test_every_index_that_is_made_concurrently_is_known_by_its_name() -> None:
    for migration in runner.load():
        made = "INDEX CONCURRENTLY IF NOT EXISTS" in migration.sql and not migration.in_transaction
        assert (runner.MADE_INDEX.search(migration.sql) is not None) == made, migration.name


async def test_an_older_schema_is_told_with_what_to_run(empty_database_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="session-service migrate"):
        await runner.require_current(empty_database_url)
    await migrate(empty_database_url, role=ROLE, migrations=runner.load()[:1])
    with pytest.raises(SchemaOutdated, match=runner.load()[1].name):
        await runner.require_current(empty_database_url)


async def test_the_runtime_role_has_no_right_to_change_the_schema(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(f'SET ROLE "{ROLE}"')
        for statement in (
            "CREATE TABLE mine (n int)",
            "DROP TABLE revisions",
            "ALTER TABLE revisions ADD COLUMN mine int",
            "CREATE OR REPLACE FUNCTION lock_sessions_v1(integer[], bigint[], boolean) RETURNS integer[]"
            " LANGUAGE sql AS 'SELECT NULL::integer[]'",
            "UPDATE schema_migrations SET checksum = ''",
            "TRUNCATE revisions",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert await connection.fetchval("SELECT count(*) FROM revisions") == 0
    finally:
        await connection.close()


def test_files_are_numbered_without_gap_and_end_with_a_newline() -> None:
    migrations = runner.load(Path(__file__).parents[2] / "migrations")
    assert [m.name[:4] for m in migrations] == [f"{n:04}" for n in range(1, len(migrations) + 1)]
    assert all(m.sql.endswith("\n") for m in migrations)
