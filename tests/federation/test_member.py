"""What a member keeps and counts: a bounded outbox, half-fetched models, its place among others, metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.core import Metric

from federation.database import claim, connect
from federation.errors import FederationError
from federation.hub import Hub
from federation.metrics import Meter
from federation.node import Node
from federation.route import OutboxLimits, Route
from models.learner import Params
from tests.conftest import need_program
from tests.federation.conftest import World, aggregating
from tests.federation.proxy import Proxy
from tests.federation.test_node import equal, first, soon
from tests.servers.databases import PASSWORD, READER, PostgreSql

PARAMS: Params = {"trunk/0.weight": np.arange(3_000_000, dtype=np.float32).reshape(3000, 1000)}


async def met(world: World) -> None:
    """gateway-a has been here once, so it can seal for the aggregator."""
    async with world.aggregator(), world.member("gateway-a", "intl") as node:
        await soon(node.connected.wait())


def away(world: World, **options: object) -> Node:
    """gateway-a with an aggregator that is not there."""
    folder = world.folder / "gateway-a"
    return Node.member(*world.identity("gateway-a", "intl"), "https://127.0.0.1:9", folder, **options)  # type: ignore[arg-type]


async def filled(node: Node) -> int:
    """How many reports the outbox takes before it refuses."""
    for sent in range(100):
        try:
            await node.send("cloud", "task.report", {"text": "x" * 1000})
        except FederationError as error:
            assert error.code == "FF-FED-023"  # noqa: PT017 — which one is refused is what is asked
            return sent
    raise AssertionError("it takes everything")


@pytest.mark.parametrize("limits", [OutboxLimits(messages=3), OutboxLimits(bytes=5_000)])
async def test_a_full_outbox_takes_no_more_reports_and_is_counted(world: World, limits: OutboxLimits) -> None:
    await met(world)
    meter = Meter()
    async with away(world, outbox=limits, meter=meter) as node:
        sent = await filled(node)
        assert 2 <= sent < 10
        assert meter.outbox is not None
        assert meter.outbox.depth == sent
    async with away(world, outbox=limits, meter=meter) as node:  # what waits is counted after a restart, too
        assert node.relay.meter.outbox is not None
        assert node.relay.meter.outbox.depth == sent


async def test_an_answer_finds_room_in_a_full_outbox(world: World) -> None:
    async with world.aggregator() as cloud:
        folder = world.folder / "gateway-a"
        limits = OutboxLimits(messages=0)
        node = Node.member(*world.identity("gateway-a", "intl"), world.url("intl"), folder, outbox=limits)
        async with node:
            await soon(node.connected.wait())
            await cloud.context("t").send("gateway-a", "fit", {"request": "r"})
            message = await soon(node.context("t").receive())
            with pytest.raises(FederationError, match="FF-FED-023"):
                await node.send("cloud", "task.report", {})
            with cloud.context("t").listening("gateway-a", "r") as said:
                await node.context("t").answer(message, {"done": 1})
                assert (await soon(said.get())).meta["done"] == 1


async def test_a_model_half_fetched_is_fetched_on_by_the_next_process(world: World) -> None:
    async with world.aggregator() as cloud, Proxy(world.ports["intl"]) as proxy:
        route = Route(piece_bytes=1 << 20)
        who, url, folder = world.identity("gateway-a", "intl"), f"https://127.0.0.1:{proxy.port}", world.folder / "a"
        async with Node.member(*who, url, folder, route=route) as node:
            await soon(node.connected.wait())
            await cloud.send("gateway-a", "task.start", {}, params=PARAMS)
            message = await first(node)
            proxy.freeze_after = 6_000_000
            fetching = asyncio.create_task(message.params())
            async with asyncio.timeout(20):
                while not proxy.frozen:  # noqa: ASYNC110 — the proxy has no event for it
                    await asyncio.sleep(0.01)
            fetching.cancel()
            await asyncio.wait([fetching])
        kept = sum(path.stat().st_size for path in (folder / "inbox").iterdir())
        assert 3_000_000 < kept < 12_000_000
        proxy.frozen = False
        async with Node.member(*who, url, folder, route=route) as node:
            message = await first(node)
            before = len(proxy.passed)
            assert equal(await message.params(), PARAMS)
            assert len(proxy.passed) - before < 12_000_000 - kept + 200_000
            await message.done()
        assert list((folder / "inbox").iterdir()) == []


async def test_what_the_disk_changed_of_a_half_fetched_model_is_fetched_anew(world: World) -> None:
    async with world.aggregator() as cloud, world.member("gateway-a", "intl") as node:
        await soon(node.connected.wait())
        await cloud.send("gateway-a", "task.start", {}, params=PARAMS)
        message = await first(node)
        (world.folder / "gateway-a" / "inbox" / message.blobs[0]).write_bytes(bytes(2_000_000))
        assert equal(await message.params(), PARAMS)


async def test_control_data_too_large_for_a_message_travels_in_a_blob(world: World) -> None:
    text = "x" * 3_000_000
    async with world.aggregator() as cloud, world.member("gateway-a", "intl") as node:
        await soon(node.connected.wait())
        await node.send("cloud", "task.report", {"text": text}, params=PARAMS)
        message = await first(cloud)
        assert message.meta == {"text": text}
        assert equal(await message.params(), PARAMS)
        await message.done()
    assert list((world.folder / "blobs").iterdir()) == []


async def test_a_lost_memory_is_no_reason_not_to_be_heard(world: World, ca: Path, tmp_path: Path) -> None:
    """Either side's database is gone, or an old copy: with the next session both count on from where the other stands."""
    async with world.aggregator() as cloud, world.member("gateway-a", "intl") as node:
        await soon(node.connected.wait())
        for number in range(3):
            await node.send("cloud", "task.report", {"number": number})
            await (await first(cloud)).done()
            await cloud.send("gateway-a", "task.start", {"number": number})
            await (await first(node)).done()
        ahead = cloud._journal._sent["gateway-a"], node._journal._sent["cloud"]
    for path in (world.folder / "gateway-a").glob("outbox.db*"):
        path.unlink()
    (tmp_path / "new").mkdir()
    async with aggregating(ca, tmp_path / "new") as fresh, fresh.aggregator() as cloud:
        cloud._journal._sent["gateway-a"] = ahead[0] - 100  # an old backup
        async with fresh.member("gateway-a", "intl") as node:
            node._journal._sent["cloud"] = 0  # a clock at 1970
            await soon(node.connected.wait())
            await node.send("cloud", "task.report", {"number": 9})
            assert (await first(cloud)).meta == {"number": 9}
    async with world.aggregator() as cloud, world.member("gateway-a", "intl") as node:
        node._journal._sent["cloud"] = 0
        await soon(node.connected.wait())
        await node.send("cloud", "task.report", {"number": 10})
        assert (await first(cloud)).meta == {"number": 10}
        assert cloud._journal._sent.get("gateway-a", 0) == ahead[0]


async def test_two_cannot_have_one_database(world: World) -> None:
    with pytest.raises(FederationError, match=r"FF-FED-042: another process uses the database sqlite.*hub\.db"):
        Hub.create(connect(f"sqlite:///{world.folder / 'hub.db'}"), world.folder / "blobs")
    async with world.member("gateway-a", "intl"):
        with pytest.raises(FederationError, match="FF-FED-042"):
            world.member("gateway-a", "intl")
    async with world.member("gateway-a", "intl"):
        pass  # it was let go


@pytest.mark.server("postgresql")
def test_two_cannot_have_one_postgresql() -> None:
    need_program("initdb", "apt-get install postgresql")
    with PostgreSql() as server:
        from sqlalchemy import make_url

        url = make_url(server.url).set(password=PASSWORD, username=READER).render_as_string(hide_password=False)
        one, two = connect(url), connect(url)
        held = claim(one)
        with pytest.raises(FederationError, match="FF-FED-042") as refused:
            claim(two)
        assert PASSWORD not in str(refused.value)
        held.close()
        claim(two).close()
        one.dispose()
        two.dispose()


def value(metrics: list[Metric], name: str, **labels: str) -> float:
    """Of one sample."""
    found = [s.value for m in metrics for s in m.samples if s.name == name and labels.items() <= s.labels.items()]
    assert found, f"no sample {name} {labels}"
    return found[0]


@pytest.mark.clause("9.4.3d")
async def test_what_passes_is_counted_on_both_sides(world: World) -> None:
    meter = Meter()
    async with world.aggregator() as cloud:
        folder = world.folder / "gateway-a"
        who = world.identity("gateway-a", "intl")
        async with Node.member(*who, world.url("intl"), folder, meter=meter) as node:
            await soon(node.connected.wait())
            await node.send("cloud", "task.report", {}, params=PARAMS)
            message = await first(cloud)
            await message.params()
            await message.done()
            await cloud.send("gateway-a", "task.start", {})
            await (await first(node)).done()
            here, there = list(meter.collect()), list(world.hub.meter.collect())
        gone = list(meter.collect())
    part, up = "fedfab_federation_", "fedfab_federation_link_up"
    assert value(here, f"{part}sent_bytes_total", peer="cloud") > 12_000_000
    assert value(there, f"{part}received_bytes_total", peer="gateway-a") > 12_000_000
    assert value(here, f"{part}sent_messages_total", peer="cloud") == 1
    assert value(there, f"{part}sent_messages_total", peer="gateway-a") == 1
    assert value(here, f"{part}message_bytes_count", direction="received") == 1
    assert (value(here, up, peer="cloud"), value(gone, up, peer="cloud")) == (1, 0)
    assert value(here, f"{part}sessions_total") == 1
    assert abs(value(here, f"{part}clock_skew_seconds")) < 1
    assert value(here, f"{part}poll_seconds_count") >= 1
    assert [(b.name, b.limit) for b in meter.buffers()] == [("outbox", 10_000), ("outbox_bytes", 8 << 30)]
