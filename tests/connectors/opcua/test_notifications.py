"""The bytes of a delivery come out as asyncua would have decoded them."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime

import pytest
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_to_binary
from asyncua.ua.uaerrors import UaError
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.contract import Quality, Sample
from connectors.opcua.notifications import block, parse
from connectors.opcua.values import sample

NOW = 1_800_000_000_000_000_000
INTEGERS = {"SByte": 8, "Int16": 16, "Int32": 32, "Int64": 64}


def integers(name: str, bits: int) -> st.SearchStrategy[ua.Variant]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).map(lambda n: ua.Variant(n, ua.VariantType[name]))


VARIANTS = st.one_of(
    st.floats().map(lambda x: ua.Variant(x, ua.VariantType.Double)),
    st.floats(width=32).map(lambda x: ua.Variant(x, ua.VariantType.Float)),
    st.booleans().map(lambda x: ua.Variant(x, ua.VariantType.Boolean)),
    *(integers(name, bits) for name, bits in INTEGERS.items()),
    st.integers(0, 2**64 - 1).map(lambda n: ua.Variant(n, ua.VariantType.UInt64)),
    st.text(max_size=5).map(lambda x: ua.Variant(x, ua.VariantType.String)),
    st.lists(st.floats(-9, 9), max_size=3).map(lambda x: ua.Variant(x, ua.VariantType.Double, is_array=True)),
    st.just(ua.Variant(None, ua.VariantType.Null)),
    st.just(ua.Variant(ua.LocalizedText("local"))),
    st.just(ua.Variant(b"bytes", ua.VariantType.ByteString)),
)
TIMES = st.none() | st.datetimes(datetime(1601, 1, 1), datetime(2250, 1, 1)).map(lambda time: time.replace(tzinfo=UTC))
STATUSES = st.none() | st.sampled_from([0x00000000, 0x40000000, 0x80340000, 0x00000480]).map(ua.StatusCode)
DATA = st.tuples(st.none() | VARIANTS, STATUSES, TIMES, TIMES).map(lambda fields: ua.DataValue(*fields))


def response(*changes: list[ua.MonitoredItemNotification], sequence: int = 7) -> Buffer:
    """A publish response with a notification for each list of changes, as bytes."""
    message = ua.NotificationMessage(
        SequenceNumber=sequence,
        NotificationData=[ua.DataChangeNotification(MonitoredItems=items) for items in changes],
    )
    result = ua.PublishResult(SubscriptionId=1, AvailableSequenceNumbers=[7, 8], NotificationMessage=message)
    return Buffer(struct_to_binary(ua.PublishResponse(Parameters=result)))


def comparable(samples: list[Sample]) -> list[tuple[object, ...]]:
    return [(s.tag, repr(s.value), s.quality, s.source_time // 1000, s.gateway_time) for s in samples]


@settings(max_examples=300, deadline=None)
@given(st.lists(DATA, min_size=1, max_size=12), st.integers(0, 12))
def test_every_value_comes_out_as_asyncua_decodes_it(data: list[ua.DataValue], cut: int) -> None:
    names = {handle: f"t{handle}" for handle in range(1, 4)}
    items = [ua.MonitoredItemNotification(1 + i % 3, each) for i, each in enumerate(data)]
    got, overflowed = block(names, [parse(response(items[:cut], items[cut:]))], NOW)
    assert comparable(got.samples()) == comparable(
        [sample(names[item.ClientHandle], item.Value, NOW) for item in items]
    )
    assert set(overflowed) == {
        names[item.ClientHandle] for item in items if item.Value.StatusCode and item.Value.StatusCode.value == 0x480
    }


def test_time_keeps_the_hundred_nanoseconds_that_the_wire_carries() -> None:
    item = ua.MonitoredItemNotification(
        1, ua.DataValue(ua.Variant(1.5), SourceTimestamp=datetime(2026, 1, 1, tzinfo=UTC))
    )
    wire = bytes(response([item]))
    ticks = (datetime(2026, 1, 1, tzinfo=UTC) - datetime(1601, 1, 1, tzinfo=UTC)) // (datetime.resolution) * 10
    wire = wire.replace(ticks.to_bytes(8, "little"), (ticks + 3).to_bytes(8, "little"))
    (only,), _ = block({1: "t"}, [parse(Buffer(wire))], NOW)
    assert only == Sample("t", 1.5, Quality.GOOD, int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 10**9 + 300, NOW)


def test_a_sign_of_life_and_the_end_of_a_subscription() -> None:
    alive = parse(response())
    assert (alive.sequence, alive.handles, alive.ended) == (0, [], 0)
    message = ua.NotificationMessage(
        SequenceNumber=9, NotificationData=[ua.StatusChangeNotification(ua.StatusCode(ua.StatusCodes.BadTimeout))]
    )
    gone = ua.PublishResponse(Parameters=ua.PublishResult(NotificationMessage=message))
    assert parse(Buffer(struct_to_binary(gone))).ended == ua.StatusCodes.BadTimeout


def test_picoseconds_stand_behind_their_time_and_a_value_may_be_absent() -> None:
    """Part 6, 5.2.2.17; written out because asyncua would put both times first."""
    moment = 133_000_000_000_000_000
    with_picoseconds = struct.pack("<IBBdqHqH", 1, 0b111101, 11, 2.5, moment, 7, moment + 9, 8)
    server_only = struct.pack("<IBBiqH", 2, 0b101001, 6, -3, moment + 9, 8)
    bad = struct.pack("<IBIq", 1, 0b110, 0x80340000, moment)
    wire = bytes(response([ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant(1.0), None))]))
    one = struct.pack("<IBBd", 1, 1, 11, 1.0)
    size = 4 + len(with_picoseconds + server_only + bad) + 4  # the array's length, and no diagnostics behind it
    wire = wire.replace(
        struct.pack("<ii", 4 + len(one) + 4, 1) + one,
        struct.pack("<ii", size, 3) + with_picoseconds + server_only + bad,
    )
    samples, _ = block({1: "a", 2: "b"}, [parse(Buffer(wire))], NOW)
    at = (moment - 116_444_736_000_000_000) * 100
    assert samples.samples() == [
        Sample("a", 2.5, Quality.GOOD, at, NOW),
        Sample("b", -3, Quality.GOOD, at + 900, NOW),
        Sample("a", None, Quality.BAD, at, NOW),
    ]


def test_a_time_beyond_the_epoch_of_nanoseconds_is_none() -> None:
    item = ua.MonitoredItemNotification(
        1, ua.DataValue(ua.Variant(math.pi), SourceTimestamp=datetime(9000, 1, 1, tzinfo=UTC))
    )
    (only,), _ = block({1: "t"}, [parse(response([item]))], NOW)
    assert only.source_time == NOW


@pytest.mark.parametrize("size", [10, 45, 60, 80])
def test_a_torn_response_is_refused(size: int) -> None:
    items = [ua.MonitoredItemNotification(1, ua.DataValue(ua.Variant(1.5)))]
    with pytest.raises(UaError):
        parse(Buffer(bytes(response(items, items))[:size]))


def test_a_variable_that_nobody_asked_for_is_refused() -> None:
    items = [ua.MonitoredItemNotification(5, ua.DataValue(ua.Variant(1.5)))]
    with pytest.raises(UaError, match="nobody asked for"):
        block({1: "t"}, [parse(response(items))], NOW)
