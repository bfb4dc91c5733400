"""A TCP proxy between members and their aggregator: it cuts lines where a test wants them cut, and records what passes."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a free loopback port and passes all bytes on. ``cuts`` are the bytes after which the next lines break.

    A line silent for ``idle_s`` is cut. While ``frozen``, or once ``freeze_after`` further bytes have passed, all lines stay open and
    nothing passes.
    """

    def __init__(self, target: int, cuts: list[int] | None = None, idle_s: float | None = None) -> None:
        self._target, self._idle_s = target, idle_s
        self.idle_cuts = 0
        self.freeze_after: int | None = None
        self._moving = asyncio.Event()
        self._moving.set()
        self.cuts = cuts or []
        self.cut = 0
        self.passed = bytearray()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def frozen(self) -> bool:
        return not self._moving.is_set()

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        (self._moving.clear if frozen else self._moving.set)()

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer, writer), self._pump(far_reader, writer, far_writer))

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await asyncio.wait_for(reader.read(1 << 16), self._idle_s):
                if self.freeze_after is not None:
                    self.freeze_after -= len(data)
                    if self.freeze_after <= 0:
                        self.freeze_after, self.frozen = None, True
                await self._moving.wait()
                self.passed += data
                if self.cuts:
                    self.cuts[0] -= len(data)
                    if self.cuts[0] <= 0:
                        self.cuts.pop(0)
                        self.cut += 1
                        writer.transport.abort()
                        other.transport.abort()
                        return
                writer.write(data)
                await writer.drain()
        except (
            TimeoutError
        ):  # silent in this direction; where nothing came from the other side either, both have waited as long
            self.idle_cuts += 1
            other.transport.abort()
        except OSError:
            return
        finally:
            writer.close()
