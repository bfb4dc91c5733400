"""A federation on loopback: one CA, an aggregator with listeners in both suites, members that dial it over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from federation.client import Link
from federation.database import connect
from federation.hub import Hub
from federation.node import Node
from federation.route import Route
from federation.server import FederationServer, Limits, listen
from tests.conftest import free_port
from trust import pki, tls
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName

MEMBERS = ("gateway-a", "gateway-b", "gateway-c")
CLOUD = "10.219.7.1"
"""The aggregator's address where a test has a network of its own."""


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CA that has issued the aggregator ``cloud``, three gateways and an operator."""
    folder = tmp_path_factory.mktemp("federation-ca")
    pki.init(folder, pki.SUITES, "Test Works")
    pki.issue(folder, pki.Request("cloud", "coordinator", "Test Works", ["localhost", "127.0.0.1", CLOUD]))
    for name in MEMBERS:
        pki.issue(folder, pki.Request(name, "gateway", "Test Works"))
    pki.issue(folder, pki.Request("operator", "operator", "Test Works"))
    for name in ("edge-proxy", "other-proxy"):
        pki.issue(folder, pki.Request(name, "proxy", "Test Works", ["localhost", "127.0.0.1"]))
    return folder


@pytest.fixture(params=pki.SUITES)
def suite_name(request: pytest.FixtureRequest) -> SuiteName:
    """Each of the two suites."""
    name: SuiteName = request.param
    return name


@dataclass
class World:
    """What a test needs to take part: identities, the aggregator's hub, and where it listens, by suite."""

    ca: Path
    folder: Path
    hub: Hub
    ports: dict[SuiteName, int]
    closing: AsyncExitStack
    """What is to be closed with it."""

    def identity(self, name: str, suite: SuiteName) -> tuple[Identity, TrustStore]:
        """Key, certificate and trust store of one participant."""
        folder = self.ca / "issued" / name
        return Identity.load(folder, suite), TrustStore.load(folder, suite)

    def url(self, suite: SuiteName) -> str:
        """Address of the listener of that suite."""
        return f"https://127.0.0.1:{self.ports[suite]}"

    def aggregator(self) -> Node:
        """The node in the hub's process, with an identity in both suites."""
        return Node.aggregator([self.identity("cloud", suite) for suite in self.ports], self.hub)

    def member(self, name: str, suite: SuiteName, port: int | None = None) -> Node:
        """A member with a folder of its own, dialling the listener or another port on loopback."""
        url = self.url(suite) if port is None else f"https://127.0.0.1:{port}"
        return Node.member(*self.identity(name, suite), url, self.folder / name)

    async def everybody(self, names: Iterable[str]) -> None:
        """Wait until all these have opened a session."""
        async with asyncio.timeout(30):
            while not set(names) <= set(self.hub.participants):  # noqa: ASYNC110 — nothing in the product waits for it
                await asyncio.sleep(0.01)

    def link(self, name: str, suite: SuiteName = "intl", port: int | None = None, route: Route | None = None) -> Link:
        """The bare calls of the protocol in the name of one participant."""
        url = self.url(suite) if port is None else f"https://127.0.0.1:{port}"
        return Link(*self.identity(name, suite), url, route)


@asynccontextmanager
async def aggregating(
    ca: Path, folder: Path, limits: Limits | None = None, database: str | None = None
) -> AsyncIterator[World]:
    """An aggregator with its blobs in ``folder``, and its database too where no URL is given, listening in both suites."""
    engine = connect(database or f"sqlite:///{folder / 'hub.db'}")
    hub = Hub.create(engine, folder / "blobs")
    async with AsyncExitStack() as stack:
        world = World(ca, folder, hub, {}, stack)
        stack.push_async_callback(hub.close)
        for suite in pki.SUITES:
            app = web.Application()
            identity, trust = world.identity("cloud", suite)
            FederationServer(identity, trust, hub, limits).add_routes(app)
            world.ports[suite] = free_port()
            runner = await listen(app, "127.0.0.1", world.ports[suite], tls.server_context(identity, trust))
            stack.push_async_callback(runner.cleanup)
        yield world
    engine.dispose()


@pytest.fixture
async def world(ca: Path, tmp_path: Path) -> AsyncIterator[World]:
    """A running aggregator."""
    async with aggregating(ca, tmp_path) as running:
        yield running
