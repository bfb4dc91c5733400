"""How much is taken in: requests and bytes at one time, the size of one body, and how long it may take to arrive."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import web

from gateway.config.inference import Inference
from gateway.inference.refusal import RefusalError

_ANY_ZLIB = zlib.MAX_WBITS | 32  # gzip (RFC 1952) or zlib (RFC 1950), by its head
_MIB = 1 << 20


class Intake:
    """The bounds of `Inference`, and what is under way. A request beyond them is refused before its body is read."""

    def __init__(self, settings: Inference) -> None:
        self.requests = 0
        self.bytes = 0
        self.rejected = 0
        self.apply(settings)

    def apply(self, settings: Inference) -> None:
        """Go by these bounds from now on."""
        self.max_requests = settings.max_requests
        self.body_bytes = settings.body_mib * _MIB
        self.memory_bytes = settings.memory_mib * _MIB
        self.timeout_s = settings.timeout_s

    def admit(self, request: web.BaseRequest) -> int:
        """Count a request until `release`, which is given the answer.

        Raises RefusalError FF-INFER-013 (429) when too much is under way, -018 (413) for too large a body.
        """
        length = request.content_length
        if length is None:
            length = self.body_bytes if request.body_exists else 0
        if length > self.body_bytes:
            raise self._too_large(f"a body of {length} bytes")
        if self.requests >= self.max_requests or self.bytes + length > self.memory_bytes:
            self.rejected += 1
            raise RefusalError(
                429,
                "FF-INFER-013",
                f"{self.requests} requests with {self.bytes} bytes are under way",
                hint="ask again after Retry-After seconds, or raise [inference] max_requests and memory_mib",
                retry_after_s=1,
            )
        self.requests += 1
        self.bytes += length
        return length

    def release(self, length: int) -> None:
        """A request is answered."""
        self.requests -= 1
        self.bytes -= length

    async def body(self, request: web.BaseRequest) -> bytes:
        """The body as it was sent. Raises RefusalError FF-INFER-018 (413) when it is too large, -019 (408) when it does not come."""
        content = request.content
        if content.is_eof():  # nearly always it came with its head
            return content.read_nowait()
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.timeout_s):
                while part := await content.readany():
                    parts.append(part)
                    size += len(part)
                    if size > self.body_bytes:
                        raise self._too_large("the body")
        except TimeoutError:
            raise RefusalError(
                408, "FF-INFER-019", f"the body did not arrive within {self.timeout_s:g} s; {size} bytes came"
            ) from None
        return b"".join(parts)

    def unpacked(self, body: bytes, encoding: str | None) -> bytes:
        """The body without its ``Content-Encoding``. Raises RefusalError FF-INFER-003 (415 or 400), or -018 (413) beyond the bound."""
        if encoding is None or encoding == "identity":
            return body
        if encoding not in {"gzip", "deflate"}:
            raise RefusalError(
                415, "FF-INFER-003", f'Content-Encoding is "{encoding[:40]}", expected gzip, deflate or none'
            )
        packed = zlib.decompressobj(_ANY_ZLIB)
        try:
            data = packed.decompress(body, self.body_bytes + 1)
        except zlib.error as error:
            raise RefusalError(400, "FF-INFER-003", f"the body is no {encoding}: {error}") from None
        if len(data) > self.body_bytes:
            raise self._too_large("the body, unpacked,")
        if not packed.eof or packed.unused_data:
            raise RefusalError(400, "FF-INFER-003", f"the body is not one whole {encoding} stream")
        return data

    def _too_large(self, what: str) -> RefusalError:
        return RefusalError(
            413,
            "FF-INFER-018",
            f"{what} is more than {self.body_bytes} bytes",
            hint="send fewer windows in one request, or raise [inference] body_mib",
        )
