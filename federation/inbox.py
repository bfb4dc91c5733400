"""Blobs on their way to a member: what has arrived stays on the disk until its message is handled, so nothing is fetched twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from pathlib import Path
from weakref import WeakValueDictionary

from typing_extensions import Buffer

from federation.blobs import BlobStore, open_stream
from federation.client import Link
from trust.blob import Manifest
from trust.errors import TrustError


class Inbox:
    """Sealed files in ``folder``, checked against the digests of the manifest whenever they are opened."""

    def __init__(self, folder: Path, link: Link) -> None:
        self._blobs, self._link = BlobStore(folder), link
        self._opening: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self, blob: str, manifest: Manifest, progress: Callable[[], None]) -> bytearray:
        """The plaintext. Goes on where an earlier call, or an earlier process, was cut; ``progress`` is called as bytes arrive.

        Raises RefusedError FF-FED-013 where the blob is gone, TrustError for bytes that are not what was sealed.
        """
        async with self._opening.setdefault(blob, asyncio.Lock()):
            kept = self._blobs.size(blob)
            try:
                return await self._open(blob, manifest, progress)
            except TrustError:
                await self._blobs.drop([blob])
                if not kept:
                    raise
            return await self._open(
                blob, manifest, progress
            )  # the disk had changed what was kept of it: from the start

    async def drop(self, blobs: Collection[str]) -> None:
        """The messages that named these are handled."""
        await self._blobs.drop(blobs)

    async def sweep(self) -> None:
        """Remove what nobody has asked for any more for a week."""
        await self._blobs.drop(await self._blobs.old())

    async def _open(self, blob: str, manifest: Manifest, progress: Callable[[], None]) -> bytearray:
        async with aclosing(self._pieces(blob, manifest.sealed_size, progress)) as pieces:
            return await open_stream(manifest, pieces)

    async def _pieces(self, blob: str, size: int, progress: Callable[[], None]) -> AsyncGenerator[Buffer]:
        """What lies here, then what is fetched and kept."""

        async def fetched() -> AsyncIterator[bytes]:
            async for piece in self._link.download(blob, kept):
                progress()
                yield piece

        kept = min(self._blobs.size(blob), size)
        if kept:
            async for piece in self._blobs.read(blob, 0, kept):
                yield piece
        if kept < size:
            async for new in self._blobs.keep(blob, fetched()):
                yield new
