"""The Modbus connector against libmodbus, a C library of another code base, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from connectors.contract import Connector, Quality, Sample, Value
from connectors.errors import ConnectorError
from connectors.registry import get
from tests.connectors.modbus.test_decode import registers_of
from tests.servers.modbus import ModbusServer

pytestmark = [pytest.mark.server("libmodbus"), pytest.mark.clause("9.1.2")]

TAGS = [
    {"name": "speed", "address": 0, "unit": "rpm"},
    {"name": "temperature", "table": "input", "address": 10, "type": "f32", "order": "CDAB", "unit": "degC"},
    {"name": "energy", "address": 4, "type": "u64"},
    {"name": "current", "address": 2, "type": "i16", "scale": 0.1, "unit": "A"},
    {"name": "alarm", "address": 3, "type": "bool", "bit": 5},
    {"name": "running", "table": "coil", "address": 7},
    {"name": "door", "table": "discrete", "address": 8},
    {"name": "program", "address": 20, "type": "string", "length": 3},
]
VALUES: dict[str, Value] = {
    "speed": 1450,
    "temperature": 36.625,
    "energy": 123456789012345,
    "current": -1.5,
    "alarm": True,
    "running": True,
    "door": False,
    "program": "A-17",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ModbusServer]:
    with ModbusServer(tmp_path) as running:
        running.set("holding", 0, 1450)
        running.set("holding", 2, 0xFFFF & -15, 1 << 5)
        running.set("holding", 4, *registers_of(123456789012345, "u64", "ABCD"))
        running.set("holding", 20, 0x412D, 0x3137, 0)
        running.set("input", 10, *registers_of(36.625, "f32", "CDAB"))
        running.set("coil", 7, 1)
        yield running


def connector(server: ModbusServer, tags: list[dict[str, Any]] | None = None, **options: Any) -> Connector:
    kind = get("modbus")
    section = {"name": "drive", "host": "127.0.0.1", "port": server.port, "every_s": 0.01, "timeout_s": 1.0}
    return kind.create(kind.config.model_validate({**section, "tag": tags or TAGS, **options}))


async def read_on(drive: Connector) -> None:
    """Poll until something goes wrong: a lost connection may show in the next poll or in the one behind it."""
    while True:
        await drive.read()


def values(samples: Sequence[Sample]) -> dict[str, Value]:
    return {sample.tag: sample.value for sample in samples}


async def test_a_poll_is_one_snapshot_of_all_kinds(server: ModbusServer) -> None:
    drive = connector(server)
    before = time.time_ns()
    await drive.start(None)
    samples = (await drive.read()).samples
    await drive.stop()
    assert values(samples) == pytest.approx(VALUES)
    assert [sample.tag for sample in samples] == [tag["name"] for tag in TAGS]
    assert len({(sample.source_time, sample.gateway_time) for sample in samples}) == 1
    assert before < samples[0].gateway_time == samples[0].source_time < time.time_ns()
    assert server.tell("count") == "4"  # eight tags in four tables: four reads


async def test_polls_every_5_ms(server: ModbusServer) -> None:
    drive = connector(server, TAGS[:1], every_s=0.005)
    await drive.start(None)
    times = [(await drive.read()).samples[0].gateway_time for _ in range(100)]
    await drive.stop()
    assert median(later - earlier for earlier, later in pairwise(times)) == pytest.approx(5e6, rel=0.3)


async def test_a_gateway_that_is_busy_storing_loses_no_poll(server: ModbusServer) -> None:
    drive = connector(server, TAGS[:1], every_s=0.01)
    await drive.start(None)
    polled = len((await drive.read()).samples)
    while polled < 30:
        before = int(server.tell("count"))
        while int(server.tell("count")) < before + 10:  # noqa: ASYNC110  nothing is read meanwhile; the server tells no events
            await asyncio.sleep(0)
        batch = await drive.read()
        assert len(batch.samples) >= 9  # the tenth answer may be on its way
        polled += len(batch.samples)
        times = [sample.gateway_time for sample in batch.samples]
        assert times == sorted(set(times))
    await drive.stop()


async def test_polls_that_cannot_be_kept_are_counted_and_said_once(
    server: ModbusServer, caplog: pytest.LogCaptureFixture
) -> None:
    drive = connector(server, TAGS[:1], every_s=0.002)
    await drive.start(None)
    await drive.read()
    missed = 0
    while not missed:
        time.sleep(0.02)  # noqa: ASYNC251  the whole gateway hangs
        missed = (await drive.read()).missed
    await drive.stop()
    assert [r.getMessage() for r in caplog.records if "cannot be kept" in r.getMessage()] == [
        "drive: polls every 0.002 s cannot be kept: device, network or gateway is too slow"
    ]


async def test_one_dead_register_among_good_ones(server: ModbusServer, caplog: pytest.LogCaptureFixture) -> None:
    server.tell("hole 33 33")
    for place in range(30, 40):
        server.set("holding", place, place)
    drive = connector(server, [{"name": f"r{place}", "address": place} for place in range(30, 40)])
    await drive.start(None)
    for _ in range(2):
        samples = (await drive.read()).samples
        assert values(samples) == {f"r{place}": None if place == 33 else place for place in range(30, 40)}
        assert [sample.tag for sample in samples if sample.quality is Quality.BAD] == ["r33"]
    before = int(server.tell("count"))
    await drive.read()
    assert int(server.tell("count")) - before <= 5  # what was learned is kept: no new search at every poll
    server.tell("hole -1 -1")
    assert values((await drive.read()).samples)["r33"] == 33
    await drive.stop()
    assert len([record for record in caplog.records if "refuses" in record.getMessage()]) == 1


async def test_a_hole_between_good_tags_costs_no_tag(server: ModbusServer) -> None:
    server.tell("hole 50 51")
    server.set("holding", 48, 1, 2)
    server.set("holding", 52, 3)
    drive = connector(server, [{"name": f"r{place}", "address": place} for place in (48, 49, 52)])
    await drive.start(None)
    assert values((await drive.read()).samples) == {"r48": 1, "r49": 2, "r52": 3}
    await drive.stop()


async def test_a_silent_unit_does_not_hold_up_the_others(server: ModbusServer) -> None:
    server.tell("silent 9")
    tags = [
        TAGS[0],
        {"name": "dead", "address": 0, "unit_id": 9},
        {"name": "dead-coil", "table": "coil", "address": 0, "unit_id": 9},
    ]
    drive = connector(server, tags, timeout_s=0.3)
    await drive.start(None)
    started = time.monotonic()
    for _ in range(5):
        samples = (await drive.read()).samples
        assert values(samples) == {"speed": 1450, "dead": None, "dead-coil": None}
        assert [sample.quality for sample in samples] == [Quality.GOOD, Quality.BAD, Quality.BAD]
    assert time.monotonic() - started < 2 * 0.3  # waited for once, not at every poll
    await drive.stop()


async def test_no_unit_answers(server: ModbusServer) -> None:
    server.tell("silent 1")
    drive = connector(server, timeout_s=0.2)
    await drive.start(None)
    with pytest.raises(ConnectorError, match="FF-MODBUS-003"):
        await drive.read()
    await drive.stop()


async def test_connection_lost_then_started_again(server: ModbusServer) -> None:
    drive = connector(server)
    await drive.start(None)
    await drive.read()
    server.tell("drop")
    with pytest.raises(ConnectorError, match="FF-MODBUS-002"):
        await read_on(drive)
    await drive.stop()
    await drive.start(None)
    assert values((await drive.read()).samples) == pytest.approx(VALUES)
    server.stop()
    with pytest.raises(ConnectorError, match="FF-MODBUS-002"):
        await read_on(drive)
    await drive.stop()
    with pytest.raises(ConnectorError, match="FF-MODBUS-001"):
        await drive.start(None)
    await drive.stop()
    await drive.stop()
    server.start()
    await drive.start(None)
    assert values((await drive.read()).samples)["speed"] == 0
    await drive.stop()


async def test_a_hanging_device_raises_and_is_never_a_zero(server: ModbusServer) -> None:
    drive = connector(server, timeout_s=0.3)
    await drive.start(None)
    await drive.read()
    server.pause()
    with pytest.raises(ConnectorError, match="FF-MODBUS-003"):
        await drive.read()
    await drive.stop()


async def test_probe(server: ModbusServer) -> None:
    server.tell("hole 90 90")
    readings = await connector(server, [*TAGS, {"name": "gone", "address": 90}]).probe()
    assert values(readings) == pytest.approx({**VALUES, "gone": None})
    assert readings[-1].quality is Quality.BAD


async def test_a_cancelled_read_leaves_no_trace(server: ModbusServer) -> None:
    drive = connector(server, every_s=0.01)
    await drive.start(None)
    for _ in range(20):
        reading = asyncio.create_task(drive.read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading])
    assert values((await drive.read()).samples) == pytest.approx(VALUES)
    await drive.stop()
