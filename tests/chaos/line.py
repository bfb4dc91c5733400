"""The line between a gateway and the cloud, as a TCP proxy that can be cut, silenced and throttled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

BLOCK = 1 << 14


class Line:
    """Listens on a free loopback port and passes all bytes on to ``target``."""

    def __init__(self, target: int) -> None:
        self.cuts = 0
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._refusing = False
        self._bytes_per_s: float | None = None
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where the gateway finds the cloud."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Break all connections; new ones are taken at once."""
        self.cuts += 1
        for writer in list(self._writers):
            writer.transport.abort()

    async def down(self, seconds: float) -> None:
        """No connection holds for so long."""
        self._refusing = True
        self.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._refusing = False

    async def silent(self, seconds: float) -> None:
        """Connections stay, nothing passes."""
        self._open.clear()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._open.set()

    async def slow(self, bytes_per_s: float, seconds: float) -> None:
        """Every connection passes no more than this in each direction."""
        self._bytes_per_s = bytes_per_s
        try:
            await asyncio.sleep(seconds)
        finally:
            self._bytes_per_s = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the cloud is down: so is what hangs on it
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        pumps = {
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        }
        self._pumps |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for each in pair:
            each.transport.abort()
        await asyncio.wait(pumps)
        self._pumps -= pumps
        self._writers -= pair

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(BLOCK):
                await self._open.wait()
                if self._bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                writer.write(data)
                await writer.drain()
