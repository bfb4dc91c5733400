"""The SQL connector: new rows by cursor, a batch at a time, from a thread of its own because the drivers block."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from connectors.contract import Batch, Quality, Sample
from connectors.errors import ConnectorConfigError
from connectors.sql.config import SqlConfig
from connectors.sql.database import Database
from connectors.sql.rows import Cursor, Rows, from_text, to_text

_T = TypeVar("_T")


class SqlConnector:
    """Reads one table or query. The cursor of a batch is that of its last row; it moves on when the batch is acknowledged."""

    def __init__(self, config: SqlConfig) -> None:
        self._config = config
        self._rows = Rows(config)
        self._session: _Session | None = None
        self._position: Cursor | None = None

    async def start(self, cursor: str | None) -> None:
        """Connect and go on behind ``cursor``. Raises ConnectorError."""
        try:
            self._position = None if cursor is None else from_text(cursor)
        except ValueError as error:
            raise ConnectorConfigError(
                "FF-SQL-006",
                f"source {self._config.name} cannot go on: {error}",
                hint="the source had another type before; give it a new name to read from the beginning",
            ) from error
        self._session = _Session(self._config)
        await self._session.run(self._session.database.connect)

    async def read(self) -> Batch:
        """The next rows; waits ``every_s`` as long as there are none. Raises ConnectorError."""
        session = self._session
        if session is None:
            raise RuntimeError("read before start")
        rows = await session.run(lambda: session.database.after(self._position))
        while not rows:  # a database has no event to wait for
            await asyncio.sleep(self._config.every_s)
            rows = await session.run(lambda: session.database.after(self._position))
        position = rows[-1][0]
        try:
            cursor = to_text(position)
        except TypeError as error:
            raise ConnectorConfigError(
                "FF-SQL-007",
                f'source {self._config.name}: column "{self._config.cursor}" holds {error}, which cannot be a cursor',
                hint="choose a column of numbers, times or texts that grows with every row",
            ) from error

        async def acknowledge() -> None:
            self._position = from_text(cursor)

        return Batch(self._rows.samples(rows, time.time_ns()), cursor, acknowledge)

    async def stop(self) -> None:
        """Disconnect, whatever state the connection is in; a query that is running is waited for, ``timeout_s`` at most."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def probe(self) -> Sequence[Sample]:
        """The tags of the row with the highest cursor, on a connection of its own. Raises ConnectorError."""
        session = _Session(self._config)
        try:
            await session.run(session.database.connect)
            rows = await session.run(session.database.last)
        finally:
            await session.close()
        now = time.time_ns()
        if not rows:
            return [Sample(tag, None, Quality.BAD, now, now) for tag in self._config.tag_names()]
        return self._rows.samples(rows, now)


class _Session:
    """A database and the one thread that may touch it."""

    def __init__(self, config: SqlConfig) -> None:
        self.database = Database(config)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sql-{config.name}")

    async def run(self, step: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, step)

    async def close(self) -> None:
        try:
            await self.run(self.database.close)
        finally:
            self._thread.shutdown(wait=False)
