"""The OPC UA connector against node-opcua, a server of another code base, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.contract import Connector, Quality, Sample
from connectors.errors import ConnectorError
from connectors.registry import get
from tests.servers.certificates import make_certificate
from tests.servers.opcua import OpcUaServer

pytestmark = [pytest.mark.server("node-opcua"), pytest.mark.clause("9.1.2")]

TAGS = [
    {"name": "temperature", "node": "ns=2;s=Press.Temperature", "unit": "degC"},
    {"name": "count", "path": "/2:Press/2:Count"},
    {"name": "running", "node": "nsu=urn:fedfab:test:press;s=Press.Running"},
    {"name": "program", "node": "ns=2;s=Press.Program"},
    {"name": "zone-2", "node": "ns=2;s=Press.Zones", "index": 1},
]
FAST = {"publishing_s": 0.05, "sampling_s": 0.0, "timeout_s": 3.0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpcUaServer]:
    with OpcUaServer(tmp_path_factory.mktemp("opcua")) as running:
        yield running


def connector(server: OpcUaServer, tags: list[dict[str, Any]] | None = None, **options: Any) -> Connector:
    kind = get("opcua")
    section = {"name": "press", "type": "opcua", "endpoint": server.endpoint, "tag": tags or TAGS, **FAST, **options}
    return kind.create(kind.config.model_validate(section))


@pytest.fixture
async def reader(server: OpcUaServer) -> AsyncIterator[Connector]:
    press = connector(server)
    await press.start(None)
    yield press
    await press.stop()


async def collect(press: Connector, count: int) -> list[Sample]:
    samples: list[Sample] = []
    async with asyncio.timeout(20):
        while len(samples) < count:
            samples.extend((await press.read()).samples)
    return samples


async def test_first_values_by_node_id_path_uri_and_index(reader: Connector) -> None:
    before = time.time_ns()
    first = {sample.tag: sample for sample in await collect(reader, len(TAGS))}
    assert {tag: sample.value for tag, sample in first.items()} == {
        "temperature": 20.5,
        "count": 7,
        "running": True,
        "program": "A-1",
        "zone-2": 2.5,
    }
    for sample in first.values():
        assert sample.quality is Quality.GOOD
        assert before - 300e9 < sample.source_time < sample.gateway_time


KINDS = {
    "Boolean": True, "SByte": -8, "Byte": 8, "Int16": -16, "UInt16": 16, "Int32": -32, "UInt32": 32, "Int64": 64, "UInt64": 64,
    "Float": 0.5, "Double": -0.5, "String": "text", "DateTime": "2026-01-02T03:04:05.678000+00:00", "LocalizedText": "local",
    "QualifiedName": "name", "Guid": "72962b91-fa75-4ae6-8d28-b404dc7daf63", "ByteString": None, "StatusCode": None,
}  # fmt: skip


async def test_every_kind_of_value_by_subscription_as_by_reading(server: OpcUaServer) -> None:
    press = connector(server, [{"name": kind, "node": f"ns=2;s=Press.A{kind}"} for kind in KINDS])
    await press.start(None)
    followed = {sample.tag: sample for sample in await collect(press, len(KINDS))}
    await press.stop()
    assert {tag: sample.value for tag, sample in followed.items()} == KINDS
    assert [type(followed[tag].value) for tag in KINDS] == [type(value) for value in KINDS.values()]
    for reading in await press.probe():
        assert followed[reading.tag][:3] == reading[:3]
        assert abs(followed[reading.tag].source_time - reading.source_time) < 1000  # asyncua reads microseconds


async def test_no_change_is_lost_in_a_burst(server: OpcUaServer) -> None:
    press = connector(server, [{"name": "burst", "node": "ns=2;s=Press.Count"}], queue_size=3000)
    await press.start(None)
    await collect(press, 1)
    await asyncio.to_thread(server.set, "Count", *range(1000, 3000))
    samples = await collect(press, 2000)
    assert [sample.value for sample in samples] == list(range(1000, 3000))
    assert [sample.source_time for sample in samples] == sorted(sample.source_time for sample in samples)
    await asyncio.to_thread(server.set, "Count", 7)
    await press.stop()


async def test_quality_follows_the_status_code_and_a_bad_value_is_none(server: OpcUaServer) -> None:
    press = connector(server, [TAGS[0]])
    await press.start(None)
    await collect(press, 1)
    for status, quality, value in (
        ("UncertainLastUsableValue", Quality.UNCERTAIN, 20.5),
        ("BadSensorFailure", Quality.BAD, None),
        ("Good", Quality.GOOD, 20.5),
    ):
        await asyncio.to_thread(server.set_status, "Temperature", status)
        sample = (await collect(press, 1))[-1]
        assert (sample.quality, sample.value) == (quality, value)
    await press.stop()


async def test_dead_nodes_among_good_ones(server: OpcUaServer, caplog: pytest.LogCaptureFixture) -> None:
    dead = [
        {"name": "gone", "node": "ns=2;s=Press.Gone"},
        {"name": "lost", "path": "/2:Press/2:Lost"},
        {"name": "nowhere", "node": "nsu=urn:unknown;s=x"},
        {"name": "no-element", "node": "ns=2;s=Press.Zones", "index": 9},
        {"name": "array", "node": "ns=2;s=Press.Zones"},
    ]
    press = connector(server, [*dead, *TAGS])
    for _ in range(2):  # a second start says nothing new
        await press.start(None)
        samples = {sample.tag: sample for sample in await collect(press, len(dead) + len(TAGS))}
        assert {tag for tag, sample in samples.items() if sample.quality is Quality.BAD} == {
            tag["name"] for tag in dead
        }
        assert all(sample.value is None for sample in samples.values() if sample.quality is Quality.BAD)
        assert samples["temperature"].value == 20.5
        await press.stop()
    warnings = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(warnings) == 1
    assert "gone (ns=2;s=Press.Gone: BadNodeIdUnknown)" in warnings[0]


async def test_probe_gives_one_reading_per_tag_in_order(server: OpcUaServer) -> None:
    press = connector(server, [TAGS[1], {"name": "gone", "node": "ns=2;s=Press.Gone"}, TAGS[0]])
    readings = await press.probe()
    assert [(reading.tag, reading.value, reading.quality) for reading in readings] == [
        ("count", 7, Quality.GOOD),
        ("gone", None, Quality.BAD),
        ("temperature", 20.5, Quality.GOOD),
    ]


async def test_a_full_buffer_holds_the_server_back_and_loses_nothing(server: OpcUaServer) -> None:
    press = connector(server, [{"name": "burst", "node": "ns=2;s=Press.Count"}], queue_size=9000, buffer=1000)
    await press.start(None)
    await collect(press, 1)
    await asyncio.to_thread(server.set, "Count", *range(10_000, 14_000))
    first = (await press.read()).samples
    samples = [*first, *await collect(press, 4000 - len(first))]
    assert [sample.value for sample in samples] == list(range(10_000, 14_000))
    await asyncio.to_thread(server.set, "Count", 7)
    await press.stop()


async def test_dropped_changes_are_reported(server: OpcUaServer, caplog: pytest.LogCaptureFixture) -> None:
    press = connector(server, [{"name": "burst", "node": "ns=2;s=Press.Count"}], queue_size=5, publishing_s=0.5)
    await press.start(None)
    await collect(press, 1)
    await asyncio.to_thread(server.set, "Count", *range(100))
    assert len(await collect(press, 5)) == 5
    assert "the server dropped changes of burst" in caplog.text
    await asyncio.to_thread(server.set, "Count", 7)
    await press.stop()


async def test_server_gone_while_reading_then_started_again(tmp_path: Path) -> None:
    server = OpcUaServer(tmp_path)
    with server:
        press = connector(server)
        await press.start(None)
        await collect(press, len(TAGS))
        waiting = asyncio.create_task(press.read())
        server.stop()
        with pytest.raises(ConnectorError, match="FF-OPCUA-003"):
            async with asyncio.timeout(10):
                await waiting
        await press.stop()
        with pytest.raises(ConnectorError, match="FF-OPCUA-001"):
            await press.start(None)
        await press.stop()
        await press.stop()
        server.start()
        await press.start(None)
        assert all(sample.value is not None for sample in await collect(press, len(TAGS)))
        await press.stop()


async def test_a_silent_server_is_noticed(tmp_path: Path) -> None:
    with OpcUaServer(tmp_path) as server:
        press = connector(server, timeout_s=0.5)
        await press.start(None)
        await collect(press, len(TAGS))
        server.pause()
        with pytest.raises(ConnectorError, match=r"FF-OPCUA-00[34]"):
            async with asyncio.timeout(10):
                await press.read()
        await press.stop()


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpcUaServer]:
    folder = tmp_path_factory.mktemp("secure")
    make_certificate(folder, "gateway", "urn:fedfab:gateway-a")
    make_certificate(folder, "stranger", "urn:fedfab:stranger")
    (folder / "password").write_text("s3cret-of-anna\n")
    (folder / "password").chmod(0o600)
    with OpcUaServer(
        folder, secure=True, users={"anna": "s3cret-of-anna"}, trusted=(folder / "gateway.der",)
    ) as server:
        yield server


def options(server: OpcUaServer, who: str = "gateway", **changed: Any) -> dict[str, Any]:
    return {
        "security": "Basic256Sha256",
        "certificate": server.folder / f"{who}.der",
        "key": server.folder / f"{who}.key",
        "server_certificate": server.certificate,
        "user": "anna",
        "password": {"file": server.folder / "password"},
    } | changed


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes256Sha256RsaPss"])
@pytest.mark.parametrize("mode", ["SignAndEncrypt", "Sign"])
async def test_signed_and_encrypted(secure: OpcUaServer, policy: str, mode: str) -> None:
    press = connector(secure, **options(secure, security=policy, mode=mode))
    await press.start(None)
    assert {sample.value for sample in await collect(press, len(TAGS))} == {20.5, 7, True, "A-1", 2.5}
    await press.stop()


async def test_a_stranger_is_refused(secure: OpcUaServer) -> None:
    press = connector(secure, **options(secure, "stranger"))
    with pytest.raises(ConnectorError, match=r"FF-OPCUA-00[12]"):
        await press.start(None)
    await press.stop()


async def test_a_server_with_another_certificate_is_refused(secure: OpcUaServer) -> None:
    press = connector(secure, **options(secure, server_certificate=secure.folder / "stranger.der"))
    with pytest.raises(ConnectorError, match=r"FF-OPCUA-00[12]"):
        await press.start(None)
    await press.stop()


async def test_a_wrong_password_is_refused_and_never_shown(
    secure: OpcUaServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    (secure.folder / "wrong").write_text("not-the-passw0rd")
    (secure.folder / "wrong").chmod(0o600)
    press = connector(secure, **options(secure, password={"file": secure.folder / "wrong"}))
    with pytest.raises(ConnectorError, match="FF-OPCUA-002") as refused:
        await press.start(None)
    await press.stop()
    assert "not-the-passw0rd" not in caplog.text + str(refused.value)
