"""Changes of variables out of the bytes of a publish response (OPC UA Part 4, 5.14.5; Part 6, 5.2) into columns. Pure.

asyncua makes a dozen objects of each change, which at thousands a second is most of what a gateway does. Here a value of fixed size,
as nearly all are, is unpacked by one call; any other is left to asyncua, item by item.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from asyncua import ua
from asyncua.common.utils import Buffer, NotEnoughData
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError

from connectors.contract import Quality, Value
from connectors.opcua.values import nanoseconds, plain
from connectors.samples import Kind, SampleBlock, Values

_OVERFLOW = 0x0480
"""InfoType DataValue and the Overflow bit: the server dropped changes before this one (OPC UA Part 4, 7.39)."""
_UNIX = 116_444_736_000_000_000
"""1970 in OPC UA's time, hundreds of nanoseconds since 1601."""
_LATEST = _UNIX + 2**63 // 100


@dataclass(slots=True)
class Delivery:
    """What one publish response brought: n changes, column by column."""

    sequence: int
    """Number by which it is acknowledged; 0 for a mere sign of life."""
    handles: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    """None: missing, of a kind that no tag can hold, or NaN, which may also be left as it is."""
    statuses: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    """The source's, else the server's, ns since the epoch; 0: neither was sent."""
    ended: int = 0
    """Status code with which the server has ended the subscription; 0: it goes on."""


def parse(response: Buffer) -> Delivery:
    """Read a whole response. Raises UaError where the service failed or the bytes are none."""
    try:
        nodeid_from_binary(response)
        struct_from_binary(ua.ResponseHeader, response).ServiceResult.check()
        return _result(bytes(response))
    except (struct.error, IndexError, NotEnoughData) as error:
        raise UaError(f"a delivery cannot be understood: {error}") from error


def block(names: Mapping[int, str], deliveries: Sequence[Delivery], now: int) -> tuple[SampleBlock, list[str]]:
    """The samples of all changes in order, received at ``now`` (ns), and the tags of which the server dropped changes before.

    The quality is the top two bits of the status code. A bad value, NaN, or one of a kind no tag can hold is BAD and None.
    """
    status = np.array([status for each in deliveries for status in each.statuses], np.uint32)
    time = np.array([time for each in deliveries for time in each.times], np.int64)
    handles, tag = np.unique(
        np.array([handle for each in deliveries for handle in each.handles], np.uint32), return_inverse=True
    )
    kind, number, integer, texts = Values.of([value for each in deliveries for value in each.values])
    quality = np.minimum(status >> 30, Quality.BAD).astype(np.uint8)
    nothing = (quality == Quality.BAD) | (kind == Kind.NONE) | ((kind == Kind.NUMBER) & np.isnan(number))
    quality[nothing], kind[nothing], number[nothing], integer[nothing] = Quality.BAD, Kind.NONE, np.nan, 0
    tags = tuple(names.get(handle, "") for handle in handles.tolist())
    if "" in tags:
        raise UaError("the server delivers a variable that nobody asked for")
    overflowed = np.unique(tag[status & _OVERFLOW == _OVERFLOW]).tolist()
    samples = SampleBlock(
        tags=tags,
        tag=tag.astype(np.uint32),
        kind=kind,
        number=number,
        integer=integer,
        texts=texts,
        quality=quality,
        source_time=np.where(time > 0, time, now),
        gateway_time=np.full(len(time), now, np.int64),
    )
    return samples, [tags[place] for place in overflowed]


class _Layout(NamedTuple):
    """How a change lies in the bytes, by the first two of its data value: which fields are there, and the value's type."""

    unpack: Callable[..., tuple[Any, ...]]
    size: int
    status: int
    """Position of the field among those unpacked; -1, where a zero is appended, if it is not there. Handle and value are first."""
    source_time: int
    server_time: int


def _layouts() -> dict[bytes, _Layout]:
    """Part 6, 5.2.2.17: a mask says which fields follow. Of the values those of one element and of fixed size."""
    found = {}
    values = enumerate("?bBhHiIqQfd", ua.VariantType.Boolean.value)
    for type_id, code in values:
        for mask in range(1, 64, 2):  # the lowest bit: there is a value
            layout, places, fields = f"<I2x{code}", {}, 2
            for name, bit, code_of_field in (
                ("status", 2, "I"),
                ("source_time", 4, "q"),
                ("source_picoseconds", 16, "H"),
                ("server_time", 8, "q"),
                ("server_picoseconds", 32, "H"),
            ):
                if mask & bit:
                    places[name], fields, layout = fields, fields + 1, layout + code_of_field
            shape = struct.Struct(layout)
            found[bytes((mask, type_id))] = _Layout(
                shape.unpack_from,
                shape.size,
                *(places.get(name, -1) for name in ("status", "source_time", "server_time")),
            )
    return found


_LAYOUTS = _layouts()
_RESULT = struct.Struct("<Ii")
_MESSAGE = struct.Struct("<?Iqi")
_OBJECT = struct.Struct("<Bi")


def _result(data: bytes) -> Delivery:
    _, available = _RESULT.unpack_from(data)
    at = _RESULT.size + 4 * max(0, available)
    _, sequence, _, notifications = _MESSAGE.unpack_from(data, at)
    at += _MESSAGE.size
    delivery = Delivery(sequence if notifications > 0 else 0)
    for _ in range(notifications):
        header = Buffer(data, at)
        kind = nodeid_from_binary(header).Identifier
        _, size = _OBJECT.unpack_from(data, header.cur_pos)
        at = header.cur_pos + _OBJECT.size
        if kind == ObjectIds.DataChangeNotification_Encoding_DefaultBinary:
            _changes(data, at, delivery)
        elif kind == ObjectIds.StatusChangeNotification_Encoding_DefaultBinary:
            (delivery.ended,) = struct.unpack_from("<I", data, at)
        at += size
    return delivery


def _changes(data: bytes, at: int, delivery: Delivery) -> None:
    """Part 4, 7.25.2: an array of client handle and data value."""
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        layout = _LAYOUTS.get(data[at + 4 : at + 6])
        if layout is None:
            at = _single(data, at, delivery)
            continue
        row = (*layout.unpack(data, at), 0)
        delivery.handles.append(row[0])
        delivery.values.append(row[1])
        delivery.statuses.append(row[layout.status])
        delivery.times.append(_since_1970(row[layout.source_time]) or _since_1970(row[layout.server_time]))
        at += layout.size


def _since_1970(ticks: int) -> int:
    """Nanoseconds; 0 for OPC UA's null time and for what nanoseconds cannot count."""
    return 100 * (ticks - _UNIX) if _UNIX < ticks < _LATEST else 0


def _single(data: bytes, at: int, delivery: Delivery) -> int:
    """Leave one change to asyncua. Where the next one begins."""
    rest = Buffer(data, at)
    change = struct_from_binary(ua.MonitoredItemNotification, rest)
    status = change.Value.StatusCode
    delivery.handles.append(change.ClientHandle)
    delivery.values.append(None if change.Value.Value is None else plain(change.Value.Value.Value))
    delivery.statuses.append(0 if status is None else status.value)
    delivery.times.append(nanoseconds(change.Value.SourceTimestamp) or nanoseconds(change.Value.ServerTimestamp))
    return rest.cur_pos
