"""The coordinator's own tables. The schema in a database is what `coordinator/migrations` made; a test keeps the two equal.

Times are milliseconds since the epoch, UTC. JSON columns hold what a pydantic model wrote.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Serial = BigInteger().with_variant(Integer, "sqlite")  # only an INTEGER primary key counts up by itself in SQLite

contacts = Table(
    "contacts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("suite", String(8), nullable=False),
    Column("role", String(16), nullable=False),
    Column("organisation", Text, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("first_seen", BigInteger, nullable=False),
    Column("last_seen", BigInteger, nullable=False),
)
"""Who has called, and when. The certificates are in `federation.tables.participants`."""

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(48), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("members", JSON, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("submitted_by", String(64), nullable=False),
    Column("submitted", BigInteger, nullable=False),
    Column("started", BigInteger),
    Column("ended", BigInteger),
)

events = Table(
    "task_events",
    metadata,
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("task", String(32), ForeignKey("tasks.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("body", JSON, nullable=False),
    Index("ix_task_events_task_number", "task", "number"),
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    Column("name", String(48), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("task", String(32), ForeignKey("tasks.id"), nullable=False),
    Column("parent", Integer),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("members", JSON, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("participants", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    UniqueConstraint("task"),
)

in_use = Table(
    "models_in_use",
    metadata,
    Column("name", String(48), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("before", JSON, nullable=False),
    Column("since", BigInteger, nullable=False),
    Column("who", String(64), nullable=False),
    Column("why", Text, nullable=False),
)
