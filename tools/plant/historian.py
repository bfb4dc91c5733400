"""The plant's SQL historian: one table per machine, which grows by a row for each cycle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy import BigInteger, Column, Engine, Float, Integer, MetaData, Table, create_engine, event, insert
from sqlalchemy.exc import SQLAlchemyError

from tools.errors import ToolError
from tools.plant.config import Sql
from tools.plant.faults import Reading
from tools.plant.physics import COUNTERS

COMMIT_S = 0.2
"""A historian collects rows and commits them together, so often."""
PENDING = 10_000
"""Rows held when the database is slow; when full, the machines wait."""


class Channel:
    """One machine's table."""

    def __init__(
        self, table: Table, fields: Sequence[str], pending: asyncio.Queue[tuple[Table, dict[str, object]]]
    ) -> None:
        self.table = table
        self._fields = fields
        self._pending = pending

    async def ready(self) -> None:
        """At once: rows in a table wait for their readers."""

    async def put(self, reading: Reading | None) -> None:
        """A further row; bad values are NULL, and a drop-out leaves no row."""
        if reading is not None:
            row: dict[str, object] = dict(zip(self._fields, reading.values, strict=True))
            row |= {"time_us": reading.time_ns // 1000, "run": reading.run, "cycle": reading.cycle}
            await self._pending.put((self.table, row))


class HistorianServer:
    """One database. Tables are made where they are missing; old rows are kept."""

    def __init__(self, config: Sql, tables: dict[str, str]) -> None:
        self._config = config
        self._tables = tables
        self._metadata = MetaData()
        self._pending: asyncio.Queue[tuple[Table, dict[str, object]]] = asyncio.Queue(PENDING)
        self._engine: Engine | None = None

    def add(self, name: str, fields: Sequence[str], units: Sequence[str], *, lossless: bool) -> Channel:
        """A machine's table; a table loses nothing anyway."""
        key = Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
        counters = [Column(name, Integer, nullable=False) for name in COUNTERS]
        values = [Column(field, Float(53)) for field in fields]
        time = Column("time_us", BigInteger, nullable=False)
        return Channel(Table(self._tables[name], self._metadata, key, time, *counters, *values), fields, self._pending)

    async def start(self) -> None:
        """Connect and make the tables. Raises ToolError FF-PLANT-003."""
        try:
            self._engine = create_engine(self._config.url)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _readers_do_not_block)
            await asyncio.to_thread(self._metadata.create_all, self._engine)
        except SQLAlchemyError as error:
            raise self._unusable(error) from error

    async def stop(self) -> None:
        """Write what is still collected, and disconnect."""
        if self._engine is not None:
            await self._commit()
            engine, self._engine = self._engine, None
            engine.dispose()

    async def serve(self) -> None:
        """Commit what was collected, again and again. Raises ToolError FF-PLANT-003 where the database is lost."""
        while True:
            await asyncio.sleep(COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        rows: dict[Table, list[dict[str, object]]] = {}
        while not self._pending.empty():
            table, row = self._pending.get_nowait()
            rows.setdefault(table, []).append(row)
        if rows and self._engine is not None:
            try:
                await asyncio.to_thread(_insert, self._engine, rows)
            except SQLAlchemyError as error:
                raise self._unusable(error) from error

    def _unusable(self, error: SQLAlchemyError) -> ToolError:
        return ToolError(
            "FF-PLANT-003",
            f"the historian's database does not work: {str(error).splitlines()[0]}",
            hint="check [sql] url in the plant file: folder, rights, server, user",
        )


def _insert(engine: Engine, rows: dict[Table, list[dict[str, object]]]) -> None:
    with engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)


def _readers_do_not_block(connection: object, _record: object) -> None:
    connection.execute("PRAGMA journal_mode=WAL")  # type: ignore[attr-defined]  # a plain sqlite3 connection
