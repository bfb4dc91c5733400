"""The feature store, as soon as the disk lets it be opened.

A gateway whose disk is full or read-only at its start answers with the models it has, and reads machines once there is room again.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from common.service import notify
from gateway.errors import StoreError
from gateway.store import Result, Store
from models.dataset import Rows

log = structlog.get_logger()

RETRY_S = 5.0
_DISK = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO}
_SQLITE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")


def make(folder: Path) -> None:
    """Make the data folder, unless the disk is in trouble. Raises StoreError FF-STORE-006 for one that can never be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if not _passes(error):
            raise _known(error) from error


class Opening:
    """``open`` opens the store; what needs it meanwhile is refused with the reason. ``sleep`` is for tests."""

    def __init__(
        self, open_: Callable[[], Store], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._open, self._sleep = open_, sleep
        self.store: Store | None = None
        self.trouble: StoreError | None = None
        """Why the disk does not let it be opened; None where it has not, or not yet, refused."""

    async def opened(self) -> Store:
        """The store, however long the disk takes. Raises StoreError for what no waiting can help."""
        while self.store is None:
            try:
                self.store = await asyncio.to_thread(self._open)
            except (OSError, StoreError) as error:
                if not _passes(error):
                    raise _known(error) from error
                if self.trouble is None:
                    log.error("store cannot be opened, only predictions are served", problem=str(error))
                    notify(f"READY=1\nSTATUS=serving only, the store cannot be opened: {error}")
                self.trouble = _known(error)
                await self._sleep(RETRY_S)
        if self.trouble is not None:
            log.info("store opened")
            notify("STATUS=")
        self.trouble = None
        return self.store

    def latest(self, end: str, n: int) -> Rows:
        """`Store.latest`."""
        return self._there().latest(end, n)

    def latest_at_hand(self, end: str, n: int) -> Rows | None:
        """`Store.latest_at_hand`."""
        return None if self.store is None else self.store.latest_at_hand(end, n)

    def append_results(self, results: Sequence[Result]) -> None:
        """`Store.append_results`."""
        self._there().append_results(results)

    async def status(self) -> dict[str, object]:
        """All that can be said of a gateway while it waits for its store. JSON-serialisable."""
        return {"pid": os.getpid(), "store_trouble": str(self.trouble) if self.trouble else None}

    def _there(self) -> Store:
        if self.store is None:
            raise self.trouble or StoreError("FF-STORE-006", "the store is being opened", hint="ask again in a moment")
        return self.store


def _passes(error: Exception) -> bool:
    """Whether it may be otherwise later: the disk is full, read-only or failing."""
    if isinstance(error, OSError):
        return error.errno in _DISK
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and str(getattr(cause, "sqlite_errorname", "")).startswith(_SQLITE)


def _known(error: OSError | StoreError) -> StoreError:
    if isinstance(error, StoreError):
        return error
    return StoreError(
        "FF-STORE-006",
        f"{error.filename}: {error.strerror}",
        hint="check free space, permissions and the disk: the gateway's user must be able to write its data_dir",
    )
