"""Through what stands between: proxies with passwords, proxies that cut, proxies that limit bodies; lines that die without a word."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import quote

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from federation import sockets
from federation.blobs import BlobStore
from federation.callers import HEADER, Callers
from federation.errors import FederationError, RefusedError, UnreachableError
from federation.node import Node
from federation.route import Route
from federation.server import FederationServer, listen
from federation.wire import PREFIX
from models.learner import Params
from tests.conftest import free_port
from tests.federation.conftest import World
from tests.federation.proxy import Proxy
from tests.federation.test_node import equal, first, soon
from tests.servers.proxies import nginx, tinyproxy
from trust import pki, tls
from trust.keys import SuiteName

PARAMS: Params = {"trunk/0.weight": np.arange(1_500_000, dtype=np.float32).reshape(1500, 1000)}
"""6 MB: more than a body that is limited to 2 MB."""


def member(world: World, suite: SuiteName, route: Route, port: int | None = None) -> Node:
    url = world.url(suite) if port is None else f"https://127.0.0.1:{port}"
    return Node.member(*world.identity("gateway-a", suite), url, world.folder / "gateway-a", route=route)


async def exchanged(world: World, node: Node) -> None:
    """Large parameters go both ways."""
    async with world.aggregator() as cloud:
        await soon(node.connected.wait())
        await cloud.send("gateway-a", "task.start", {}, params=PARAMS)
        message = await first(node)
        assert equal(await message.params(), PARAMS)
        await message.done()
        await node.send("cloud", "task.report", {}, params=PARAMS)
        message = await first(cloud)
        assert equal(await message.params(), PARAMS)
        await message.done()


@pytest.mark.server("tinyproxy")
async def test_through_an_http_proxy_with_a_password(world: World, suite_name: SuiteName, tmp_path: Path) -> None:
    with tinyproxy(tmp_path, "plant", "S3cret.of_x", world.ports[suite_name]) as port:
        route = Route(proxy=f"http://plant@127.0.0.1:{port}", proxy_password="S3cret.of_x")
        async with member(world, suite_name, route) as node:
            await exchanged(world, node)


@pytest.mark.server("tinyproxy")
async def test_a_wrong_password_is_told_and_never_shown(world: World, tmp_path: Path) -> None:
    with tinyproxy(tmp_path, "plant", "right", world.ports["intl"]) as port:
        route = Route(proxy=f"http://plant@127.0.0.1:{port}", proxy_password="wr0ng")
        assert "wr0ng" not in repr(route)
        async with world.link("gateway-a", route=route) as link:
            with pytest.raises(
                UnreachableError, match=r"FF-FED-027: the proxy http://127.0.0.1:\d+ does not.*40[17]"
            ) as told:
                await link.hello()
        assert "wr0ng" not in str(told.value)


def test_a_password_in_the_proxy_s_address_is_refused_unseen(world: World) -> None:
    with pytest.raises(FederationError, match="FF-FED-021") as refused:
        world.link("gateway-a", route=Route(proxy="http://plant:hunter2@proxy:3128"))
    assert "hunter2" not in str(refused.value)


async def test_the_environment_names_no_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with world.link("gateway-a") as link:
        await link.hello()


async def test_where_silent_lines_are_cut_polls_become_shorter(world: World) -> None:
    """The proxy cuts after a second; the member asks for less than that, and its session is never lost."""
    async with (
        Proxy(world.ports["intl"], idle_s=1.0) as proxy,
        world.aggregator() as cloud,
        member(world, "intl", Route(poll_s=30), proxy.port) as node,
    ):
        await soon(node.connected.wait())
        polls = node.relay._link._polls  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            while polls.seconds >= 1.0:  # noqa: ASYNC110 — nothing in the product waits for it
                await asyncio.sleep(0.05)
        cuts = proxy.idle_cuts
        for number in range(3):
            await asyncio.sleep(0.4)
            await cloud.send("gateway-a", "task.start", {"number": number})
            assert (await first(node)).meta == {"number": number}
        assert node.relay.meter.sessions == 1
        assert proxy.idle_cuts == cuts


async def test_a_far_end_that_vanished_is_noticed(world: World) -> None:
    """Behind a proxy that keeps the line open no kernel can tell: a call, and a transfer, without a sign of life are given up."""
    route = Route(poll_s=0.5, silence_s=1.0, connect_s=1.0)
    async with Proxy(world.ports["intl"]) as proxy, world.link("gateway-a", port=proxy.port, route=route) as link:
        await link.hello()
        proxy.frozen = True
        with pytest.raises(UnreachableError, match="FF-FED-020"):
            await soon(link.poll(0))
        proxy.frozen = False
        await link.hello()
        blobs, name = BlobStore(world.folder / "mine"), f"gateway-a.{os.urandom(16).hex()}"
        (world.folder / "mine" / name).write_bytes(bytes(20_000_000))
        proxy.freeze_after = 3_000_000
        with pytest.raises(UnreachableError, match="FF-FED-020"):
            await soon(link.upload(blobs, name, resume=False))
        proxy.frozen = False
        await soon(link.upload(blobs, name, resume=True))
        assert world.hub.blobs.size(name) == 20_000_000


async def test_the_kernel_watches_the_line(world: World) -> None:
    """A peer without power sends no FIN: unanswered bytes or probes end the connection within half a minute (tcp(7))."""
    async with world.link("gateway-a") as link:
        await link.hello()
        assert link._http is not None
        connections = [conn for pool in link._http.connector._conns.values() for conn, _ in pool]  # type: ignore[union-attr]
        opened = connections[0].transport.get_extra_info("socket")
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == sockets.DEAD_S * 1000
        assert opened.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.fixture
async def behind(world: World) -> int:
    """Port of a listener that takes the word of the proxy ``edge-proxy``."""
    identity, trust = world.identity("cloud", "intl")
    app, port = web.Application(), free_port()
    FederationServer(identity, Callers(trust, "edge-proxy"), world.hub).add_routes(app)
    runner = await listen(app, "127.0.0.1", port, tls.server_context(identity, trust))
    world.closing.push_async_callback(runner.cleanup)
    return port


@pytest.mark.server("nginx")
async def test_behind_nginx_that_ends_tls_and_takes_two_megabytes(world: World, behind: int, tmp_path: Path) -> None:
    proxy = world.ca / "issued" / "edge-proxy"
    with nginx(tmp_path, proxy, behind, ca=proxy / "ca.intl.crt") as port:
        async with member(world, "intl", Route(), port) as node:
            await exchanged(world, node)
            assert node.relay._link._pieces.size == 2 << 20  # type: ignore[attr-defined]
        assert list(world.hub.participants) == ["gateway-a"]


async def _hello(world: World, port: int, who: str, headers: dict[str, str]) -> tuple[int, str]:
    context = tls.client_context(*world.identity(who, "intl"))
    offer = {"versions": [1], "suites": ["intl"]}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"https://127.0.0.1:{port}{PREFIX}/hello", json=offer, ssl=context, headers=headers) as response,
    ):
        return response.status, (await response.json()).get("error", {}).get("code", "")


def _certificate(world: World, name: str) -> str:
    pem = (world.ca / "issued" / name / "intl.crt").read_text()
    return f":{base64.b64encode(ssl.PEM_cert_to_DER_cert(pem)).decode()}:"


async def test_only_the_named_proxy_speaks_for_others(world: World, behind: int) -> None:
    b = {HEADER: _certificate(world, "gateway-b")}
    plain = world.ports["intl"]
    assert await _hello(world, behind, "edge-proxy", b) == (200, "")
    assert list(world.hub.participants) == ["gateway-b"]
    assert await _hello(world, plain, "edge-proxy", b) == (403, "FF-FED-011")  # no proxy is named for that listener
    assert await _hello(world, behind, "other-proxy", b) == (403, "FF-FED-011")
    assert await _hello(world, behind, "edge-proxy", {}) == (403, "FF-FED-028")
    assert await _hello(world, behind, "edge-proxy", {HEADER: "gateway-b"}) == (403, "FF-FED-028")
    assert await _hello(world, behind, "edge-proxy", {HEADER: _certificate(world, "operator")}) == (403, "FF-FED-011")
    assert await _hello(world, behind, "gateway-a", b) == (200, "")  # itself, whatever its header says
    assert list(world.hub.participants) == ["gateway-a", "gateway-b"]


async def test_a_certificate_of_another_ca_is_refused_though_the_proxy_passed_it_on(
    world: World, behind: int, tmp_path: Path
) -> None:
    pki.init(tmp_path / "other", ["intl"], "Others")
    folder = pki.issue(tmp_path / "other", pki.Request("gateway-b", "gateway", "Others"))
    foreign = quote((folder / "intl.crt").read_text())
    assert await _hello(world, behind, "edge-proxy", {HEADER: foreign}) == (403, "FF-TRUST-026")


async def test_a_member_has_its_quota_and_goes_on_when_there_is_room(world: World) -> None:
    world.hub.blobs.quota_bytes = 5_000_000
    blobs = BlobStore(world.folder / "mine")
    one, two = (f"gateway-a.{os.urandom(16).hex()}" for _ in range(2))
    for name in (one, two):
        (world.folder / "mine" / name).write_bytes(bytes(3_000_000))
    async with world.link("gateway-a") as link:
        await link.hello()
        await link.upload(blobs, one, resume=False)
        with pytest.raises(UnreachableError, match=r"FF-FED-026.*holds 3000000 bytes here and may hold 5000000"):
            await link.upload(blobs, two, resume=True)
        await world.hub.blobs.drop([one])
        await link.upload(blobs, two, resume=True)
    assert world.hub.blobs.held("gateway-a") == 3_000_000


async def test_an_update_that_finds_no_room_arrives_later(world: World) -> None:
    """The node waits and tries again; nothing is lost and nobody has to do anything."""
    world.hub.blobs.quota_bytes = 1_000
    async with world.aggregator() as cloud, world.member("gateway-a", "intl") as node:
        await soon(node.connected.wait())
        await node.send("cloud", "task.report", {"number": 1}, params=PARAMS)
        async with asyncio.timeout(20):
            while "FF-FED-026" not in (node.relay._trouble or ""):  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
                if "holds" in node.relay._trouble:  # type: ignore[attr-defined]
                    break
        world.hub.blobs.quota_bytes = 1 << 30
        assert equal(await (await first(cloud)).params(), PARAMS)


async def test_a_piece_too_large_for_the_aggregator_itself_is_final(world: World) -> None:
    world.hub.blobs.max_bytes = 1_000_000
    blobs, name = BlobStore(world.folder / "mine"), f"gateway-a.{os.urandom(16).hex()}"
    (world.folder / "mine" / name).write_bytes(bytes(3_000_000))
    async with world.link("gateway-a") as link:
        await link.hello()
        with pytest.raises(RefusedError, match="FF-FED-017"):
            await link.upload(blobs, name, resume=True)
