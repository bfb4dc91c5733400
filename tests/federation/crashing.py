"""A process of its own for the tests that kill one: ``python -m tests.federation.crashing ROLE FOLDER CA PORT``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
from aiohttp import web

from federation.aggregate import aggregate
from federation.checkpoint import Checkpoint
from federation.database import connect
from federation.hub import Hub
from federation.node import Node
from federation.remote import RemoteLearner, serve
from federation.rounds import RoundReport
from federation.server import FederationServer, listen
from models.parameters import to_bytes
from models.spec import NetworkSpec, RoundsSpec, TaskSpec
from tests.federation.learners import Line
from trust import tls
from trust.identity import Identity, TrustStore

ROUNDS = 8
MEMBERS = ("gateway-a", "gateway-b")
SPEC = TaskSpec(
    name="wear", network=NetworkSpec(encoder=(200,), trunk=(200,)), rounds=RoundsSpec(max=ROUNDS, deadline_s=60)
)
"""Large enough for its parameters to travel in blobs."""


async def lead(folder: Path, ca: Path, port: int) -> None:
    """The aggregator, from its database, blobs and checkpoint in ``folder``. Says each round; writes the final parameters."""
    identity, trust = load(ca, "cloud")
    hub = Hub.create(connect(f"sqlite:///{folder / 'hub.db'}"), folder / "blobs")
    app = web.Application()
    FederationServer(identity, trust, hub).add_routes(app)
    await listen(app, "127.0.0.1", port, tls.server_context(identity, trust))
    while not set(MEMBERS) <= set(hub.participants):  # noqa: ASYNC110 — nothing in the product waits for it
        await asyncio.sleep(0.01)

    async def observe(report: RoundReport) -> None:
        print(f"round {report.round}", flush=True)

    async with Node.aggregator([(identity, trust)], hub) as node:
        learners = [RemoteLearner(node.context("t"), name) for name in MEMBERS]
        checkpoint = Checkpoint(folder / "checkpoint")
        outcome = await aggregate(SPEC, learners, name="cloud", layer="cloud", checkpoint=checkpoint, observe=observe)
        (folder / "final").write_bytes(to_bytes(outcome.params))


async def follow(name: str, folder: Path, ca: Path, port: int) -> None:
    """A member; says each round it trains."""

    class Said(Line):
        async def fit(self, round_, params):  # type: ignore[no-untyped-def]
            print(f"fit {round_}", flush=True)
            return await super().fit(round_, params)

    async with Node.member(*load(ca, name), f"https://127.0.0.1:{port}", folder / name) as node:
        await serve(node.context("t"), Said(SPEC, name), aggregator="cloud")


async def report(folder: Path, ca: Path, port: int) -> None:
    """A member that puts reports into its outbox, says the number of each once it is durable."""
    async with Node.member(*load(ca, "gateway-a"), f"https://127.0.0.1:{port}", folder / "gateway-a") as node:
        await node.connected.wait()  # before it has met its aggregator, a member cannot seal anything for it
        for number in range(1000):
            large = {"trunk/0.weight": np.full((200, 200), number, dtype=np.float32)}
            await node.send("cloud", "task.report", {"number": number}, params=large)
            print(number, flush=True)


def load(ca: Path, name: str) -> tuple[Identity, TrustStore]:
    """The intl identity of a participant."""
    return Identity.load(ca / "issued" / name, "intl"), TrustStore.load(ca / "issued" / name, "intl")


if __name__ == "__main__":
    role, place, authority, at = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    match role:
        case "lead":
            asyncio.run(lead(place, authority, at))
        case "report":
            asyncio.run(report(place, authority, at))
        case _:
            asyncio.run(follow(role, place, authority, at))
