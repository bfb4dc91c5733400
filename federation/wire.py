"""What travels: the protocol's version, lists of messages in frames, the body of a message. Described in ``docs/protocol.md``."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import safetensors.numpy
from numpy.typing import NDArray

from federation.errors import FederationError
from federation.mailbox import Delivery
from models.parameters import Buffer
from trust.blob import Manifest

VERSIONS = (1,)
"""Versions of the protocol this program speaks, best first."""
PREFIX = "/federation/v1"
FRAME = struct.Struct(">QI")
"""Before each message in a list: its cursor, its length in bytes."""
INLINE_BYTES = 64 << 10
"""Parameters up to this size travel in the message itself."""
MAX_BODY_BYTES = 768 << 10
"""The inside of a message; what is larger travels in a blob, which goes in pieces."""
MAX_MESSAGE_BYTES = 1 << 20
"""A sealed message: small enough for all that stands between, where large bodies may not pass."""

READ_BUFFER_BYTES = 1 << 20
"""Of aiohttp on either side, for blobs."""

BLOB = "Fedfab-Blob"
"""With a message: ``<blob>;<bytes>`` names the blob that must have arrived whole."""
ACK = "Fedfab-Ack"
"""With a message: cursors, comma-separated, to be acknowledged in the same commit."""
OFFSET, LENGTH = "Upload-Offset", "Upload-Length"


@dataclass(frozen=True, slots=True)
class Body:
    """What is sealed: control data, and parameters either beside it or in a blob.

    ``enclosed``: all that would stand here, the parameters too, stands in the blob, as `encode` writes it.
    """

    meta: dict[str, Any]
    inline: bytes | memoryview | None = None
    blob: str | None = None
    manifest: Manifest | None = None
    enclosed: bool = False


def encode(body: Body) -> bytes:
    """u32 length, control data as JSON, then the inline parameters as safetensors."""
    control: dict[str, Any] = {"version": VERSIONS[0], "meta": body.meta, "inline": body.inline is not None}
    if body.blob is not None and body.manifest is not None:
        control |= {"blob": body.blob, "manifest": body.manifest.to_json()}
    if body.enclosed:
        control["enclosed"] = True
    text = orjson.dumps(control)
    return b"".join([len(text).to_bytes(4, "big"), text, body.inline or b""])


def decode(data: Buffer) -> Body:
    """Raises FederationError FF-FED-019 for what `encode` cannot have made, TrustError for a bad manifest."""
    end = 4 + int.from_bytes(data[:4], "big")
    try:
        match orjson.loads(bytes(data[4:end])):
            case {"version": int(version), "meta": dict(meta), "inline": bool(inline), **rest} if version in VERSIONS:
                attached = memoryview(data)[end:] if inline else None
                if "blob" not in rest:
                    return Body(meta, attached)
                manifest = Manifest.from_json(rest["manifest"])
                return Body(meta, attached, str(rest["blob"]), manifest, bool(rest.get("enclosed")))
    except (orjson.JSONDecodeError, KeyError) as error:
        raise _unknown_body(str(error)) from error
    raise _unknown_body("version, meta or inline is missing or of another version")


def join(deliveries: Iterable[Delivery]) -> bytes:
    """A list of messages as one body of HTTP."""
    return b"".join(part for one in deliveries for part in (FRAME.pack(one.cursor, len(one.sealed)), one.sealed))


def split(data: bytes) -> list[Delivery]:
    """The list of messages that `join` wrote. Raises FederationError FF-FED-019."""
    deliveries, at = [], 0
    while at < len(data):
        try:
            cursor, length = FRAME.unpack_from(data, at)
        except struct.error as error:
            raise _unknown_body("a list of messages ends inside a frame") from error
        at += FRAME.size + length
        if at > len(data):
            raise _unknown_body("a list of messages ends inside a message")
        deliveries.append(Delivery(cursor, data[at - length : at]))
    return deliveries


def pack(arrays: Mapping[str, NDArray[np.float64]]) -> str:
    """Small arrays (sums, tallies) for control data: safetensors in base64, so that every bit arrives."""
    contiguous = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    return base64.b64encode(safetensors.numpy.save(contiguous)).decode()


def unpack(text: str) -> dict[str, NDArray[np.float64]]:
    """The arrays that `pack` wrote. Raises FederationError FF-FED-019."""
    try:
        return dict(safetensors.numpy.load(base64.b64decode(text, validate=True)))
    except (ValueError, safetensors.SafetensorError) as error:
        raise _unknown_body(f"arrays cannot be read: {error}") from error


def _unknown_body(why: str) -> FederationError:
    return FederationError(
        "FF-FED-019",
        f"a message cannot be read: {why}",
        hint="both sides must run versions of fedfab that speak the same protocol version",
    )
