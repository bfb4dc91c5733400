"""The Modbus TCP connector: one connection, polled without drift; one poll is one snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from connectors.contract import Batch, Sample
from connectors.modbus.config import ModbusConfig
from connectors.modbus.link import Link, Poll
from connectors.modbus.rhythm import Rhythm
from connectors.once import Once

_AHEAD_S = 10.0
_AHEAD_VALUES = 200_000
"""Polls that wait to be read: so long, or so many values, and one at least. Beyond that polls are left out."""


class ModbusConnector:
    """Polls one device, also while the gateway stores what came before. There is no position to go on from: the cursor is None."""

    def __init__(self, config: ModbusConfig) -> None:
        self._config = config
        self._once = Once(logging.getLogger(__name__), config.name)
        self._link: Link | None = None
        self._polling: asyncio.Task[None] | None = None
        self._polls: list[Poll] = []
        self._most = max(1, int(min(_AHEAD_S / config.every_s, _AHEAD_VALUES / len(config.tag))))
        self._missed = 0
        self._news = asyncio.Event()

    async def start(self, cursor: str | None) -> None:
        """Connect. Raises ConnectorError."""
        self._polls, self._missed = [], 0
        self._link = Link(self._config, self._once)
        await self._link.open()
        self._polling = asyncio.create_task(self._poll(self._link), name=f"poll {self._config.name}")
        self._polling.add_done_callback(lambda _: self._news.set())

    async def read(self) -> Batch:
        """All polls since the last call; waits for one. Raises ConnectorError when the connection is lost."""
        if self._link is None or self._polling is None:
            raise RuntimeError("read before start")
        while not self._polls:
            if self._polling.done():
                self._polling.result()
            self._news.clear()
            await self._news.wait()
        polls, self._polls = self._polls, []
        missed, self._missed = self._missed, 0
        return Batch(self._link.block(polls), missed=missed)

    async def stop(self) -> None:
        """Close the connection, whatever state it is in."""
        polling, self._polling = self._polling, None
        if polling is not None:
            polling.cancel()
            await asyncio.wait({polling})
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def probe(self) -> Sequence[Sample]:
        """Read every tag once on a connection of its own. Raises ConnectorError."""
        link = Link(self._config, self._once)
        try:
            await link.open()
            return link.block([await link.poll()])
        finally:
            link.close()

    async def _poll(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        rhythm = Rhythm(self._config.every_s, loop.time())
        task = asyncio.current_task()
        while (
            task is None or not task.cancelling()
        ):  # asyncio.wait_for below 3.12 loses a cancellation that meets an answer
            await asyncio.sleep(rhythm.wait(loop.time()))
            self._missed += rhythm.missed
            if len(self._polls) >= self._most:
                self._missed += 1
            else:
                poll = await link.poll()
                self._polls.append(poll)
                self._news.set()
            if self._missed:
                every_s = self._config.every_s
                self._once.failed(
                    "rhythm", f"polls every {every_s:g} s cannot be kept: device, network or gateway is too slow"
                )
