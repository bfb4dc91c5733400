"""The Modbus TCP connector: one connection, polled without drift; one poll is one snapshot."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from connectors.contract import Batch, Sample
from connectors.modbus.config import ModbusConfig
from connectors.modbus.link import Link
from connectors.modbus.rhythm import Rhythm
from connectors.once import Once


class ModbusConnector:
    """Polls one device. There is no position to go on from, so the cursor is always None."""

    def __init__(self, config: ModbusConfig) -> None:
        self._config = config
        self._once = Once(logging.getLogger(__name__), config.name)
        self._link: Link | None = None
        self._rhythm = Rhythm(config.every_s, 0.0)

    async def start(self, cursor: str | None) -> None:
        """Connect. Raises ConnectorError."""
        self._link = Link(self._config, self._once)
        await self._link.open()
        self._rhythm = Rhythm(self._config.every_s, asyncio.get_running_loop().time())

    async def read(self) -> Batch:
        """Wait until the next poll is due, then read every tag. Raises ConnectorError when the connection is lost."""
        if self._link is None:
            raise RuntimeError("read before start")
        await asyncio.sleep(self._rhythm.wait(asyncio.get_running_loop().time()))
        return Batch(await self._link.poll())

    async def stop(self) -> None:
        """Close the connection, whatever state it is in."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def probe(self) -> Sequence[Sample]:
        """Read every tag once on a connection of its own. Raises ConnectorError."""
        link = Link(self._config, self._once)
        try:
            await link.open()
            return await link.poll()
        finally:
            link.close()
