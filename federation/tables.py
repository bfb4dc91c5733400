"""The tables of this room. A coordinator's migrations cover `metadata`; a member creates them in its ``outbox.db``."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite

metadata = MetaData()

# SQLite counts up only in a column called INTEGER
_Cursor = BigInteger().with_variant(Integer, "sqlite")

messages = Table(
    "federation_messages",
    metadata,
    # never reused, also after rows were deleted: a reader's place in its mailbox stays right
    Column("cursor", _Cursor, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("sender", String(64), nullable=False),
    Column("recipient", String(64), nullable=False),
    Column("blob", String(128), nullable=True),
    Column("sealed", LargeBinary, nullable=False),
    Index("federation_messages_recipient", "recipient", "cursor"),
    Index("federation_messages_blob", "blob"),
    sqlite_autoincrement=True,
)
"""The mailbox: a sealed message until its recipient has acknowledged it, and the blob it names."""

participants = Table(
    "federation_participants",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("suite", String(8), nullable=False),
    Column("certificate", Text, nullable=False),
)
"""Whom we have met, with the certificate they showed last."""

sent = Table(
    "federation_sent",
    metadata,
    Column("recipient", String(64), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)
"""The last sequence number used towards each recipient."""

taken = Table(
    "federation_taken",
    metadata,
    Column("sender", String(64), primary_key=True),
    Column("state", Text, nullable=False),
)
"""Which messages of each sender were handled: the state of its `trust.replay.ReplayGuard`, as JSON."""

answers = Table(
    "federation_answers",
    metadata,
    Column("task", String(128), primary_key=True),
    Column("sender", String(64), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("request", String(128), nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("blob", String(128), nullable=True),
)
"""The last answer to each kind of request of a task, to be given again where the request comes again."""

outbox = Table(
    "federation_outbox",
    metadata,
    Column("place", _Cursor, primary_key=True, autoincrement=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("blob", String(128), nullable=True),
    Column("refusal", Text, nullable=True),
    sqlite_autoincrement=True,
)
"""What a member has yet to hand over to its aggregator, in order; a row with a refusal stays behind for a person to read."""


def unnamed(connection: Connection, blobs: Collection[str]) -> list[str]:
    """Those of ``blobs`` that nothing names any more: no message on its way, no answer that may be asked for again."""
    if not blobs:
        return []
    names = union_all(*(select(table.c.blob).where(table.c.blob.in_(blobs)) for table in (messages, answers, outbox)))
    return sorted(set(blobs) - set(connection.scalars(names)))


def upsert(connection: Connection, table: Table, row: dict[str, object]) -> None:
    """Insert a row, or replace the one with its primary key."""
    statement = dialect_insert(connection, table).values(row)
    key = [column.name for column in table.primary_key]
    values = {name: statement.excluded[name] for name in row if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=values))


def dialect_insert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can say what to do about a row that is there already."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
