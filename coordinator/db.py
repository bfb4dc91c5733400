"""The one database of a coordinator: how to connect, and how its schema comes to the present version.

SQLite (a file in the data folder) or PostgreSQL, chosen by URL. Migrations are shipped in the package and run at start, in one
transaction under a lock, so that two processes started together do it once and a crash leaves the old schema whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, MetaData, Select, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.pool import NullPool

from coordinator import tables
from coordinator.errors import CoordinatorError
from federation import database as federation_database
from federation import tables as federation_tables
from federation.database import Database

METADATA: tuple[MetaData, ...] = (tables.metadata, federation_tables.metadata)
"""What the migrations must arrive at: our tables, and those of the federation this database serves."""

_MIGRATION_LOCK = 0x66656466  # "fedf": the advisory lock of PostgreSQL has only a number for a name


def connect(url: str) -> Engine:
    """An engine for ``url``, not connected yet. Raises CoordinatorError FF-COORD-010 for a URL we cannot use."""
    return federation_database.connect(_checked(url))


async def rows(database: Database, query: Select[Any]) -> list[dict[str, Any]]:
    """The rows of a query, by name of the column."""
    return await database.read(lambda connection: [dict(row) for row in connection.execute(query).mappings()])


def migrate(url: str) -> tuple[str | None, str | None]:
    """Bring the schema to the present version; returns the revision before (None: an empty database) and after.

    A SQLite file that is changed is first copied to ``NAME.REVISION.bak`` beside it; PostgreSQL has backups of its own.

    Raises CoordinatorError FF-COORD-011 where the database cannot be reached, -012 where a newer fedfab has migrated it.
    """
    engine = _migrating(url)
    with _explained(engine), engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        before = _revision(connection)
        if before is not None and _known(before) != revision_needed():
            _save(engine.url, before)
        command.upgrade(alembic_config(connection), "head")
        return before, _revision(connection)


def revisions(url: str) -> tuple[str | None, str | None]:
    """The revision a database is at (None: an empty one, or a file that is not there) and the one this version needs; changes nothing.

    Raises CoordinatorError FF-COORD-011 as `migrate` does.
    """
    engine = create_engine(_checked(url), poolclass=NullPool)
    if engine.dialect.name == "sqlite" and not Path(engine.url.database or "").exists():
        return None, revision_needed()
    with _explained(engine), engine.connect() as connection:
        return _revision(connection), revision_needed()


def revision_needed() -> str | None:
    """The revision that this version works with."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def _known(revision: str) -> str:
    """The same, where this version knows it. Raises CommandError."""
    return ScriptDirectory.from_config(alembic_config()).get_revision(revision).revision


def _save(url: URL, revision: str) -> None:
    """Copy a SQLite database, whole as of its last commit."""
    if url.get_backend_name() == "sqlite" and url.database:
        copy = Path(f"{url.database}.{revision}.bak")
        copy.unlink(missing_ok=True)
        copy.touch(mode=0o600)
        with closing(sqlite3.connect(url.database)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)


@contextmanager
def _explained(engine: Engine) -> Iterator[None]:
    """What may go wrong with a database, in our words. The engine is done with afterwards."""
    where = engine.url.render_as_string(hide_password=True)
    try:
        yield
    except OperationalError as error:
        raise CoordinatorError(
            "FF-COORD-011",
            f"cannot reach the database {where}: {error.orig}",
            hint="is the server running, and are host, port, user and password in [database] right?",
        ) from error
    except CommandError as error:
        raise CoordinatorError(
            "FF-COORD-012",
            f"the database {where} is at a revision unknown to this version: {error}",
            hint="it was migrated by a newer fedfab; run that version, or restore the backup made before the upgrade",
        ) from error
    finally:
        engine.dispose()


def alembic_config(connection: Connection | None = None) -> AlembicConfig:
    """Configuration of Alembic for the migrations in this package; over an open connection where something is to be run."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _checked(url: str) -> str:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise ArgumentError(f'"{parsed.get_backend_name()}" is neither sqlite nor postgresql')
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ArgumentError("a database in memory would forget every task")
        parsed.get_dialect()
    except ArgumentError as error:
        raise CoordinatorError(
            "FF-COORD-010",
            f"[database] url: {error}",
            hint='expected "sqlite:////path/to/coordinator.db" or "postgresql://user@host/database"',
        ) from error
    return parsed.render_as_string(hide_password=False)


def _migrating(url: str) -> Engine:
    """An engine whose transactions hold DDL too: SQLite's driver would otherwise commit in front of each such statement. The
    transaction locks the whole file, so it is the lock as well."""
    engine = create_engine(_checked(url), poolclass=NullPool)
    if engine.dialect.name == "sqlite":
        Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True, mode=0o700)

        @event.listens_for(engine, "connect")
        def _(connection: Any, _record: object) -> None:
            connection.isolation_level = None
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA busy_timeout=60000")

        @event.listens_for(engine, "begin")
        def _(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
