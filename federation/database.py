"""One database behind an event loop: reads side by side in a small pool, writes one after another in group commits.

All writes that wait while one commit is on its way to the disk share the next commit. So a hundred members that answer at once
cost a few disk syncs, not a hundred, and what one write sees is never older than what the one before it left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text

from common.files import claimed
from federation.errors import FederationError

T = TypeVar("T")

READERS = 4
_CLAIM = 0x66656468  # "fedh": the advisory lock of PostgreSQL has only a number for a name
BUSY_TIMEOUT_MS = 15_000


def connect(url: str) -> Engine:
    """An engine for SQLite (write-ahead log, every commit synced to disk, what is deleted overwritten) or PostgreSQL."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine


def claim(engine: Engine) -> ExitStack:
    """Have the database for this process alone, until the returned stack is closed or the process dies.

    SQLite: a lock on a file beside it. PostgreSQL: an advisory lock (PostgreSQL 13.3.5) on a connection of its own. Two that write
    would hand out one cursor twice and lose messages. Raises FederationError FF-FED-042 where another process has it.
    """
    with ExitStack() as held:
        if engine.dialect.name == "sqlite":
            try:
                held.enter_context(claimed(Path(f"{engine.url.database}.lock")))
            except BlockingIOError as error:
                raise _taken(engine) from error
        else:
            connection = held.enter_context(engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
            held.callback(connection.invalidate)  # one that went back to the pool would keep the lock
            if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _CLAIM}):
                raise _taken(engine)
        return held.pop_all()


class Database:
    """Reads and writes of one process. ``work`` functions run in threads and get a connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="federation-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="federation-write")
        self._waiting: list[_Write[Any]] = []
        self._draining: asyncio.Task[None] | None = None

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns, once it is committed. ``work`` may run twice: it must do nothing but read and write rows.

        It is committed even where the caller is cancelled meanwhile.
        """
        write = _Write(work)
        self._waiting.append(write)
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await write.future

    async def close(self) -> None:
        """Finish the writes under way and let go of the threads; the engine stays with its owner."""
        if self._draining is not None:
            await self._draining
        self._readers.shutdown()
        self._writer.shutdown()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await loop.run_in_executor(self._writer, self._commit, batch)
            for write in batch:
                write.settle()
        self._draining = None

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self.engine.connect() as connection:
            return work(connection)

    def _commit(self, batch: list[_Write[Any]]) -> None:
        """All in one transaction; where one of them fails, each in its own, so that it fails alone."""
        try:
            with self.engine.begin() as connection:
                for write in batch:
                    write.result = write.work(connection)
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
            else:
                for write in batch:
                    self._commit([write])


def _taken(engine: Engine) -> FederationError:
    return FederationError(
        "FF-FED-042",
        f"another process uses the database {engine.url.render_as_string(hide_password=True)}",
        hint="two daemons must not share a database or data folder: stop the other one, or give this one its own",
    )


class _Write(Generic[T]):
    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.result: T
        self.error: Exception | None = None

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)
