"""A PostgreSQL server, and a fresh database in it for each test."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.servers.databases import PostgreSql


@contextmanager
def fresh_databases() -> Iterator[Callable[[], str]]:
    """Runs the server; call what it gives for the URL of an empty database."""
    with PostgreSql() as server:

        def fresh() -> str:
            name = f"fedfab_{secrets.token_hex(4)}"
            server.execute(f"CREATE DATABASE {name}")
            return f"postgresql://postgres@/{name}?host={server.folder}&port={server.port}"

        yield fresh
