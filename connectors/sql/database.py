"""One read-only connection to a database, used from one thread. Blocks."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from connectors import secrets
from connectors.errors import ConnectorConfigError, ConnectorError
from connectors.sql.config import SqlConfig
from connectors.sql.rows import Cursor, Row, whole_ties

_TIE_LIMIT = 100_000
"""Rows that may share one cursor value before this connector calls the column no cursor."""


class Database:
    """Reads the configured table or query. Every method raises ConnectorError."""

    def __init__(self, config: SqlConfig) -> None:
        self._config = config
        self._engine: sa.Engine | None = None
        self._connection: sa.Connection | None = None
        self._deadline = 0.0
        source = _source(config)
        self._cursor = source.c[config.cursor]
        self._select = sa.select(*(source.c[name] for name in config.columns()))

    def connect(self) -> None:
        """Connect read-only, with a time limit on every statement, and check that all columns are there."""
        password = secrets.read(self._config.password) if self._config.password else None
        url = sa.make_url(self._config.url)
        if password is not None:
            url = url.set(password=password)
        backend = url.get_backend_name()
        try:
            if backend == "sqlite" and not Path(url.database or "").is_file():
                raise FileNotFoundError(f"there is no file {url.database}")
            self._engine = sa.create_engine(
                url, poolclass=NullPool, hide_parameters=True, connect_args=self._connect_args(backend)
            )
            self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._restrict(self._connection, backend)
        except (SQLAlchemyError, OSError) as error:
            raise ConnectorError(
                "FF-SQL-001",
                f"no connection to {self._config.url}: {_words(error, password)}",
                hint="check host, port, database, user and password, and that the database lets this host in",
            ) from None
        self._execute(self._select.where(sa.false()))

    def after(self, position: Cursor | None) -> Sequence[Row]:
        """The next rows behind ``position``, about a batch: rows that share a cursor value are never torn apart."""
        batch = self._config.batch
        behind = self._cursor.is_not(None) if position is None else self._cursor > _bind(position)
        rows = self._execute(self._select.where(behind).order_by(self._cursor).limit(batch + 1))
        whole = whole_ties(rows, batch)
        return whole if whole or not rows else self._tie(rows[0][0])

    def last(self) -> Sequence[Row]:
        """The row with the highest cursor, or nothing from an empty table."""
        statement = self._select.where(self._cursor.is_not(None)).order_by(self._cursor.desc()).limit(1)
        return self._execute(statement)

    def close(self) -> None:
        """Disconnect; a peer that is gone already is no error."""
        connection, self._connection = self._connection, None
        engine, self._engine = self._engine, None
        try:
            if connection is not None:
                connection.close()
        except SQLAlchemyError:
            pass
        finally:
            if engine is not None:
                engine.dispose()

    def _tie(self, cursor: object) -> Sequence[Row]:
        rows = self._execute(self._select.where(self._cursor == _bind(cursor)).limit(_TIE_LIMIT + 1))
        if len(rows) > _TIE_LIMIT:
            raise ConnectorConfigError(
                "FF-SQL-005",
                f'source {self._config.name}: more than {_TIE_LIMIT} rows share the value {cursor} in column "{self._config.cursor}"',
                hint="choose a cursor column that grows with every row, such as the primary key",
            )
        return rows

    def _execute(self, statement: sa.Select[*tuple[object, ...]]) -> Sequence[Row]:
        if self._connection is None:
            raise RuntimeError("query before connect")
        self._deadline = time.monotonic() + self._config.timeout_s
        try:
            return self._connection.execute(statement).all()
        except SQLAlchemyError as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise ConnectorError(
                    "FF-SQL-003",
                    f"the connection to {self._config.url} was lost: {_words(error)}",
                    hint="the gateway tries again by itself; if it stays away, check the database and the network",
                ) from None
            raise ConnectorError(
                "FF-SQL-002",
                f"{self._config.url} refuses the query of source {self._config.name}: {_words(error)}",
                hint="check table, query and the columns' names, the reader's rights, and timeout_s for a slow query",
            ) from None

    def _connect_args(self, backend: str) -> dict[str, object]:
        seconds = max(1, round(self._config.timeout_s))
        if backend == "postgresql":
            return {
                "application_name": f"fedfab {self._config.name}",
                "connect_timeout": max(2, seconds),
                "options": f"-c default_transaction_read_only=on -c statement_timeout={1000 * seconds}",
                "tcp_user_timeout": 1000 * (seconds + 5),
            }
        if backend in ("mysql", "mariadb"):
            return {"connect_timeout": seconds, "read_timeout": seconds + 5, "charset": "utf8mb4"}
        return {"timeout": self._config.timeout_s}

    def _restrict(self, connection: sa.Connection, backend: str) -> None:
        """Read-only, and a time limit: where the server cannot be told in the login, by statement."""
        if backend in ("mysql", "mariadb"):
            connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
            limit = (
                f"max_statement_time = {self._config.timeout_s}"
                if getattr(connection.dialect, "is_mariadb", False)
                else f"max_execution_time = {round(1000 * self._config.timeout_s)}"
            )
            connection.exec_driver_sql(f"SET SESSION {limit}")
        elif backend == "sqlite":
            connection.exec_driver_sql("PRAGMA query_only = ON")
            driver = cast("sqlite3.Connection", connection.connection.dbapi_connection)
            driver.set_progress_handler(lambda: time.monotonic() > self._deadline, 100_000)


def _source(config: SqlConfig) -> sa.FromClause:
    columns: list[sa.ColumnClause[object]] = [sa.column(name) for name in config.columns()]
    if config.table:
        schema, _, name = config.table.rpartition(".")
        return sa.table(name, *columns, schema=schema or None)
    plain = config.query.replace(":", r"\:")  # a colon in the query is a colon, not a parameter
    return sa.text(plain).columns(*columns).subquery("source")


def _bind(value: object) -> sa.ColumnElement[object]:
    """A bound parameter whose type keeps the zone of a time: PostgreSQL would cut it off otherwise."""
    zoned = getattr(value, "tzinfo", None) is not None
    return sa.literal(value, sa.DateTime(timezone=True)) if zoned else sa.literal(value)


def _words(error: Exception, password: str | None = None) -> str:
    """What the driver said, without the statement, on one line, and never with the password."""
    said = str(getattr(error, "orig", None) or error)
    if password:
        said = said.replace(password, "***")
    return " ".join(said.split())
