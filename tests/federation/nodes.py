"""A process of its own for tests of networks, clocks and memory: ``python -m tests.federation.nodes ROLE FOLDER CA URL [NUMBER]``.

It answers lines on its standard output, one for each thing it has done.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
from pathlib import Path

import numpy as np
import structlog
from aiohttp import web

from federation import progress
from federation.database import connect
from federation.hub import Hub
from federation.node import Node
from federation.remote import RemoteLearner
from federation.remote import serve as serve_task
from federation.server import FederationServer, listen
from models.learner import Params, Update
from models.spec import TaskSpec
from tests.federation.crashing import load
from tests.federation.learners import Line
from trust import tls
from trust.identity import Identity, TrustStore


async def aggregating(folder: Path, ca: Path, url: str) -> tuple[Identity, TrustStore, Hub]:
    """An aggregator's hub, served at ``url`` until the process ends."""
    host, _, port = url.rpartition(":")
    identity, trust = load(ca, "cloud")
    hub = Hub.create(connect(f"sqlite:///{folder / 'hub.db'}"), folder / "blobs")
    app = web.Application()
    FederationServer(identity, trust, hub).add_routes(app)
    await listen(app, host.removeprefix("https://"), int(port), tls.server_context(identity, trust))
    return identity, trust, hub


async def serve(folder: Path, ca: Path, url: str) -> None:
    """An aggregator that prints each report it gets, and answers it."""
    identity, trust, hub = await aggregating(folder, ca, url)
    async with Node.aggregator([(identity, trust)], hub) as node:
        say("listening")
        async for message in node.unclaimed():
            params = await message.params()
            await node.send(message.header.sender, "task.start", message.meta, params=params)
            await message.done()
            say(f"got {message.meta['number']}")


async def report(folder: Path, ca: Path, url: str, count: int, size: int) -> None:
    """gateway-a sends ``count`` reports with ``size`` float32 each, one every half second, and waits for all answers."""
    async with Node.member(*load(ca, "gateway-a"), url, folder / "gateway-a") as node:
        await node.connected.wait()
        say("connected")

        async def send() -> None:
            for number in range(count):
                values = np.random.default_rng(number).normal(size=size).astype(np.float32)
                await node.send("cloud", "task.report", {"number": number}, params={"trunk/0.weight": values})
                say(f"sent {number}")
                await asyncio.sleep(0.5)

        sending = asyncio.create_task(send())
        for _ in range(count):
            message = await anext(node.unclaimed())
            params = await message.params()
            assert params is not None
            expected = np.random.default_rng(message.meta["number"]).normal(size=size).astype(np.float32)
            assert (params["trunk/0.weight"] == expected).all()
            await message.done()
            say(f"answered {message.meta['number']}")
        await sending
        say(f"skew {node.relay.clock.skew_s:.0f}")


async def ask(folder: Path, ca: Path, url: str, size: int, deadline_s: int) -> None:
    """An aggregator that asks gateway-a for one update of ``size`` float32, with a deadline that is shorter than the transfer."""
    identity, trust, hub = await aggregating(folder, ca, url)
    say("listening")
    while "gateway-a" not in hub.participants:  # noqa: ASYNC110 — nothing in the product waits for it
        await asyncio.sleep(0.05)
    async with Node.aggregator([(identity, trust)], hub) as node:
        learner = RemoteLearner(node.context("t"), "gateway-a")
        model = {"trunk/0.weight": np.random.default_rng(0).normal(size=size).astype(np.float32)}

        update = await progress.within(deadline_s, lambda: learner.fit(1, model))
        assert (update.params["trunk/0.weight"] == model["trunk/0.weight"] + 1).all()
        say("learned")


async def learn(folder: Path, ca: Path, url: str) -> None:
    """gateway-a adds one to every parameter."""

    class One(Line):
        async def fit(self, round_: int, params: Params) -> Update:
            return Update({name: value + 1 for name, value in params.items()}, 1, 0.0, {})

    async with Node.member(*load(ca, "gateway-a"), url, folder / "gateway-a") as node:
        await serve_task(node.context("t"), One(TaskSpec(name="t"), "gateway-a"), aggregator="cloud")


async def relay(folder: Path, ca: Path, url: str) -> None:
    """An aggregator that relays between members; on standard input it is asked for its memory."""
    await aggregating(folder, ca, url)
    say("listening")
    memory = Memory()
    await asyncio.to_thread(sys.stdin.readline)
    say(f"peak {memory.grown()}")


async def give(folder: Path, ca: Path, url: str, mib: int) -> None:
    """gateway-a sends parameters of ``mib`` MiB to gateway-b, once that is known; says how far its memory grew beyond them."""
    async with Node.member(*load(ca, "gateway-a"), url, folder / "gateway-a") as node:
        while "gateway-b" not in node.participants:
            await node.relay.refresh()
            await asyncio.sleep(0.1)
        params = {f"trunk/{i}.weight": np.full((mib << 15, 1), i, np.float32) for i in range(8)}  # eighths
        memory = Memory()
        await node.send("gateway-b", "task.report", {}, params=params)
        await node.relay.handed_over()
        say(f"peak {memory.grown()}")
        await asyncio.to_thread(sys.stdin.readline)


async def take(folder: Path, ca: Path, url: str, mib: int) -> None:
    """gateway-b fetches them; says how far its memory grew, the parameters themselves included."""
    async with Node.member(*load(ca, "gateway-b"), url, folder / "gateway-b") as node:
        await node.connected.wait()
        say("connected")
        memory = Memory()
        message = await anext(node.unclaimed())
        params = await message.params()
        assert params is not None
        assert [float(params[f"trunk/{i}.weight"][-1, 0]) for i in range(8)] == list(range(8))
        await message.done()
        say(f"peak {memory.grown() - (mib << 20)}")


class Memory:
    """How far the resident size has grown since this was made, at its peak."""

    def __init__(self) -> None:
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak starts anew
        self._base = _kib("VmRSS")

    def grown(self) -> int:
        """In bytes."""
        return (_kib("VmHWM") - self._base) << 10


def _kib(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def say(line: str) -> None:
    """To who started us."""
    print(line, flush=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    roles = {"serve": serve, "report": report, "ask": ask, "learn": learn, "relay": relay, "give": give, "take": take}
    role, place, authority, address, *numbers = sys.argv[1:]
    arguments = (Path(place), Path(authority), address, *map(int, numbers))
    asyncio.run(roles[role](*arguments))  # type: ignore[operator]
