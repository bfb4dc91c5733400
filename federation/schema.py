"""A member's own tables in its ``outbox.db``, and their version: an older fedfab refuses what a later one has changed.

The file says its version as SQLite's ``user_version``; 0, from before there were versions, is that of version 1. (A coordinator's database
has its migrations, `coordinator.db`.)
"""

from __future__ import annotations

from sqlalchemy import Engine

from federation import tables
from federation.errors import FederationError

VERSION = 1


def make(engine: Engine) -> None:
    """Make the tables where they are not yet. Raises FederationError FF-FED-043, and changes nothing, where a later fedfab made them."""
    with engine.connect() as connection:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version > VERSION:
        raise FederationError(
            "FF-FED-043",
            f"{engine.url.database} has schema {version}, this fedfab knows {VERSION}",
            hint="use the fedfab that wrote it, or a later one; or move the file away, and what waits in it to be sent is lost",
        )
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
