"""Large content on disk, sealed: one file each, written on from where it stands, so that an upload resumes where it was cut.

An identifier is ``<owner>.<128 random bits>``: it says whose it is, and cannot be guessed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import Buffer

from federation.errors import FederationError, RefusedError
from trust.blob import CHUNK_BYTES, BlobOpener, BlobSealer, Manifest
from trust.suite import TAG_BYTES, Suite

T = TypeVar("T")

READ_BYTES = 64 << 10
"""Read at a time: small enough that a slow line shows progress every second or two."""
WRITE_BYTES = 1 << 20
"""Gathered before it is written."""
MAX_BYTES = 4 << 30
QUOTA_BYTES = 16 << 30
ORPHAN_S = 7 * 86400
"""An upload that no message has named after this time is abandoned."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}\.[0-9a-f]{32}")


class BlobStore:
    """The files of ``folder``. Everything that touches the disk runs in threads.

    ``max_bytes`` is the most that one upload may have, ``quota_bytes`` what one owner's uploads may hold together.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES, quota_bytes: int = QUOTA_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder, self.max_bytes, self.quota_bytes = folder, max_bytes, quota_bytes
        self._uploads: dict[str, asyncio.Task[Any] | None] = {}
        self._held: dict[str, dict[str, int]] = {}
        for path in folder.iterdir():
            self._hold(path.name, path.stat().st_size)

    def held(self, owner: str) -> int:
        """Bytes that the blobs of ``owner`` take, or will once they are whole."""
        return sum(self._held.get(owner, {}).values())

    def size(self, blob: str) -> int:
        """Bytes that have arrived; 0 where none has. Raises RefusedError FF-FED-015 for what is no identifier."""
        try:
            return self._path(blob).stat().st_size
        except FileNotFoundError:
            return 0

    async def write(self, blob: str, offset: int, length: int, pieces: AsyncIterable[bytes]) -> int:
        """Write on from ``offset``; what arrived stays where the line breaks. Returns the new offset; at ``length`` it is on disk.

        A newer upload of the same blob takes over from one whose line is dead but does not know it yet.
        Raises RefusedError FF-FED-016 (409) for an offset that is not where the blob stands, FF-FED-017 (413) for too many bytes,
        FF-FED-026 (507) where the owner, or the disk, has no room for it now.
        """
        await self._take_over(blob)
        try:
            self._admit(blob, length)
            return await self._append(blob, offset, length, pieces)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_room("the aggregator's disk is full", "make room on the disk with its blobs") from error
        finally:
            if self._uploads.get(blob) is asyncio.current_task():
                del self._uploads[blob]

    async def read(self, blob: str, start: int = 0, end: int | None = None) -> AsyncIterator[memoryview]:
        """The bytes from ``start`` up to ``end``, or all that are there. Raises FileNotFoundError."""
        handle = os.open(self._path(blob), os.O_RDONLY)
        try:
            while count := READ_BYTES if end is None else min(READ_BYTES, end - start):
                piece = _cached(handle, start, count) or memoryview(await _whole(os.pread, handle, count, start))
                if not piece:
                    return
                yield piece
                start += len(piece)
        finally:
            os.close(handle)

    async def keep(self, blob: str, pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """``pieces`` as they come, each written behind what is there before it is passed on; a power cut may lose the last ones."""
        handle = os.open(self._path(blob), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            async for batch in _batches(pieces):
                await _whole(_write_all, handle, batch)
                for piece in batch:
                    yield piece
        finally:
            os.close(handle)

    async def drop(self, blobs: Collection[str]) -> None:
        """Free these; those that are not there are free already."""
        if blobs:
            await asyncio.to_thread(self._unlink, blobs)

    def seal(self, owner: str, suite: Suite, parts: Sequence[Buffer]) -> tuple[str, Manifest]:
        """``parts``, one after another, as a new blob of ``owner``, whole and on disk. Blocking: call it in a thread.

        Holds two chunks in memory besides ``parts``, however large they are.
        """
        blob = f"{owner}.{secrets.token_hex(16)}"
        views = [memoryview(part).cast("B") for part in parts]
        sealer = BlobSealer(suite, sum(map(len, views)))
        sealed = memoryview(bytearray(CHUNK_BYTES + TAG_BYTES))
        try:
            with self._path(blob).open("xb", buffering=0) as file:
                for index, plain in enumerate(_cut(views, CHUNK_BYTES)):
                    part = sealed[: len(plain) + TAG_BYTES]
                    sealer.chunk_into(index, plain, part)
                    file.write(part)
                os.fdatasync(file.fileno())
        except BaseException:
            self._unlink([blob])
            raise
        return blob, sealer.manifest()

    def open(self, blob: str, manifest: Manifest, progress: Callable[[], None]) -> bytearray:
        """The plaintext of a blob that lies here. Blocking: call it in a thread; ``progress`` is called after each chunk.

        Raises TrustError for bytes that are not what was sealed, FederationError FF-FED-018 where the file is not whole.
        """
        data, opener = bytearray(manifest.size), BlobOpener(manifest)
        target = memoryview(data)
        sealed = memoryview(bytearray(min(manifest.size, manifest.chunk_bytes) + TAG_BYTES))
        if self.size(blob) != manifest.sealed_size:
            raise wrong_length(manifest.sealed_size)
        with self._path(blob).open("rb", buffering=0) as file:
            for index in range(len(manifest.digests)):
                out = target[index * manifest.chunk_bytes : (index + 1) * manifest.chunk_bytes]
                part = sealed[: len(out) + TAG_BYTES]
                file.readinto(part)
                opener.chunk_into(index, part, out)
                progress()
        return data

    def keep_only(self, named: Collection[str | None]) -> None:
        """Remove all that nothing names any more: what a crash left behind. Blocking; not while anything is being written."""
        self._unlink([path.name for path in self._folder.iterdir() if path.name not in named])

    async def old(self, age_s: float = ORPHAN_S) -> list[str]:
        """Blobs that nobody has written to for so long: abandoned, unless something names them."""
        limit = time.time() - age_s
        return await asyncio.to_thread(
            lambda: [path.name for path in self._folder.iterdir() if path.stat().st_mtime < limit]
        )

    async def _append(self, blob: str, offset: int, length: int, pieces: AsyncIterable[bytes]) -> int:
        stands = self.size(blob)
        if offset != stands:
            raise RefusedError(
                "FF-FED-016", f"the blob stands at {stands} bytes, the upload begins at {offset}", status=409
            )
        handle = os.open(self._path(blob), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._hold(blob, length)
        try:
            async for batch in _batches(pieces):
                stands += sum(map(len, batch))
                if stands > length:
                    raise self._too_large(stands, length)
                await _whole(_write_all, handle, batch)
            await _whole(os.fdatasync, handle)
        finally:
            os.close(handle)
        return stands

    def _admit(self, blob: str, length: int) -> None:
        self._path(blob)
        if length > self.max_bytes:
            raise self._too_large(length)
        others = self.held(owner(blob)) - self._held.get(owner(blob), {}).get(blob, 0)
        if others + length > self.quota_bytes:
            raise _no_room(
                f'"{owner(blob)}" holds {others} bytes here and may hold {self.quota_bytes}: no room for {length} more',
                "it goes on by itself once earlier blobs were fetched; check that their recipients run, or raise the quota",
            )

    def _hold(self, blob: str, size: int) -> None:
        self._held.setdefault(owner(blob), {})[blob] = size

    async def _take_over(self, blob: str) -> None:
        task = asyncio.current_task()
        while (other := self._uploads.get(blob)) is not None and other is not task:
            other.cancel()
            await asyncio.wait([other])
        self._uploads[blob] = task

    def _unlink(self, blobs: Collection[str]) -> None:
        for blob in blobs:
            self._path(blob).unlink(missing_ok=True)
            self._held.get(owner(blob), {}).pop(blob, None)

    def _path(self, blob: str) -> Path:
        if not _NAME.fullmatch(blob):
            raise RefusedError("FF-FED-015", f"{blob!r} is no name of a blob", status=404)
        return self._folder / blob

    def _too_large(self, got: int, limit: int | None = None) -> RefusedError:
        return RefusedError(
            "FF-FED-017",
            f"the blob has {got} bytes, at most {limit or self.max_bytes} are taken",
            hint="make the network smaller, or raise the aggregator's limit",
            status=413,
        )


def _no_room(why: str, hint: str) -> RefusedError:
    return RefusedError("FF-FED-026", why, hint=hint, status=507)


def owner(blob: str) -> str:
    """Whose blob this is."""
    return blob.rpartition(".")[0]


async def open_stream(manifest: Manifest, pieces: AsyncIterable[Buffer]) -> bytearray:
    """The plaintext of a blob from its sealed bytes as they come; one chunk is opened in a thread while the next arrives.

    Raises TrustError for bytes that are not what was sealed, FederationError FF-FED-018 where there are too few or too many.
    """
    data, opener = bytearray(manifest.size), BlobOpener(manifest)
    target = memoryview(data)
    opening: asyncio.Future[None] | None = None
    index = 0
    async for sealed in _chunks(manifest, pieces):
        if opening is not None:
            await opening
        out = target[index * manifest.chunk_bytes :][: len(sealed) - TAG_BYTES]
        opening = asyncio.ensure_future(asyncio.to_thread(opener.chunk_into, index, sealed, out))
        index += 1
    if opening is not None:
        await opening
    return data


async def _chunks(manifest: Manifest, pieces: AsyncIterable[Buffer]) -> AsyncIterator[bytearray]:
    """The sealed chunks, each in a buffer of its own."""
    ends = [(index + 1) * (manifest.chunk_bytes + TAG_BYTES) for index in range(len(manifest.digests) - 1)]
    bounds = iter([*ends, manifest.sealed_size])
    start, end = 0, next(bounds)
    chunk, filled = bytearray(end), 0
    async for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if start == end:
                raise wrong_length(manifest.sealed_size)
            part = rest[: end - start - filled]
            chunk[filled : filled + len(part)] = part
            filled, rest = filled + len(part), rest[len(part) :]
            if start + filled == end:
                yield chunk
                start, end = end, next(bounds, end)
                chunk, filled = bytearray(end - start), 0
    if start != manifest.sealed_size:
        raise wrong_length(manifest.sealed_size)


def wrong_length(expected: int) -> FederationError:
    """A blob that is shorter or longer than its manifest says."""
    return FederationError(
        "FF-FED-018",
        f"expected a blob of {expected} bytes, got another length",
        hint="it is asked for again; if this comes back, look at the disk that holds the blobs",
    )


async def _batches(pieces: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """Small pieces gathered, so that a thread is worth its while; what came before the line broke is given, too."""
    batch: list[bytes] = []
    size = 0
    try:
        async for piece in pieces:
            batch.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES:
                yield batch
                batch, size = [], 0
    except Exception:
        yield batch
        raise
    yield batch


def _cut(views: Sequence[memoryview], size: int) -> Iterator[memoryview]:
    """The bytes of all views in chunks of ``size``, the last one shorter. Only a chunk that lies in several views is copied,
    into a buffer that the next such chunk uses again."""
    buffer, filled = memoryview(bytearray(size)), 0
    for whole in views:
        view = whole
        if filled:
            part = view[: size - filled]
            buffer[filled : filled + len(part)] = part
            filled, view = filled + len(part), view[len(part) :]
            if filled == size:
                yield buffer
                filled = 0
        rest = len(view) % size
        for start in range(0, len(view) - rest, size):
            yield view[start : start + size]
        if rest:
            buffer[:rest] = view[len(view) - rest :]
            filled = rest
    if filled or not any(map(len, views)):
        yield buffer[:filled]


def _write_all(handle: int, batch: list[bytes]) -> None:
    """``writev`` until all is written: a disk that fills up takes a part first."""
    written = os.writev(handle, batch)
    rest = memoryview(b"".join(batch))[written:] if written < sum(map(len, batch)) else memoryview(b"")
    while rest:
        rest = rest[os.write(handle, rest) :]


def _cached(handle: int, start: int, count: int) -> memoryview | None:
    """The next piece where it is in memory already, as with a blob just written: not worth a thread."""
    piece = bytearray(count)
    try:
        return memoryview(piece)[: os.preadv(handle, [piece], start, os.RWF_NOWAIT)]
    except OSError:  # on the disk only, or a file system that cannot say
        return None


async def _whole(call: Callable[..., T], *arguments: object) -> T:
    """``call`` in a thread, waited for also when we are cancelled: its file must not be closed under it."""
    running = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
