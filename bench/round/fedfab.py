"""A round of fedfab: an aggregator process and member processes with mutual TLS, sealed messages, durable mailbox and outbox,
and a checkpoint after every round, as in a plant; only the training is replaced by adding noise."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import structlog
from aiohttp import web

from federation.aggregate import aggregate
from federation.checkpoint import Checkpoint
from federation.database import connect
from federation.hub import Hub
from federation.node import Node
from federation.remote import RemoteLearner, serve
from federation.rounds import RoundReport
from federation.server import FederationServer, listen
from models.learner import Description, Moments, Params, Tally, Update
from models.parameters import scaler, shapes, trainable
from models.schema import FieldSpec, Schema
from models.spec import NetworkSpec, RoundsSpec, TaskSpec
from trust import pki, tls
from trust.identity import Identity, TrustStore

SCHEMA = Schema(fields=tuple(FieldSpec(name=f"x{i}") for i in range(10)), label=FieldSpec(name="y"))
TASK = "bench"
WIDTHS = {10**4: (100, 88), 10**6: (1000, 988), 10**7: (3200, 3113)}
"""Widths of a network with about so many parameters."""


def spec_for(params: int, rounds: int) -> TaskSpec:
    width, trunk = WIDTHS[params]
    network = NetworkSpec(encoder=(width,), trunk=(trunk,))
    return TaskSpec(name=TASK, network=network, rounds=RoundsSpec(max=rounds, deadline_s=300))


def size(params: int) -> int:
    """Parameters of that network, all told."""
    return sum(int(np.prod(shape)) for shape in shapes(spec_for(params, 1), SCHEMA).values())


class Noise:
    """A learner that adds the same noise in every round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._noise: Params = {}

    async def describe(self) -> Description:
        return Description({"bench": SCHEMA}, 100, {self.name: 100})

    async def moments(self) -> Moments:
        ones = {f"{scaler(SCHEMA)}/{kind}": np.ones(10) for kind in ("sum", "square")}
        target = {f"target/{kind}": np.ones(1) for kind in ("count", "sum", "square")}
        return {f"{scaler(SCHEMA)}/count": np.ones(1)} | ones | target

    async def fit(self, round_: int, params: Params) -> Update:
        learned = {name: value for name, value in params.items() if trainable(name)}
        if not self._noise:
            rng = np.random.default_rng()
            self._noise = {n: rng.standard_normal(v.shape, dtype=np.float32) for n, v in learned.items()}
        return Update({n: v + self._noise[n] for n, v in learned.items()}, 100, 1.0, {self.name: _TALLY})

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        return {self.name: _TALLY}

    async def finish(self, params: Params) -> Mapping[str, Any]:
        return {}


_TALLY: Tally = {name: np.ones(1) for name in ("count", "absolute", "squared", "label", "label_squared")}


async def lead(options: argparse.Namespace, folder: Path) -> None:
    names = [f"end-{i:03}" for i in range(options.ends)]
    pki.init(folder / "ca", [options.suite], "Bench")
    pki.issue(folder / "ca", pki.Request("cloud", "coordinator", "Bench", ["127.0.0.1"]))
    for name in names:
        pki.issue(folder / "ca", pki.Request(name, "gateway", "Bench"))
    identity, trust = load(folder, "cloud", options.suite)
    hub = Hub.create(connect(f"sqlite:///{folder / 'hub.db'}"), folder / "blobs")
    app = web.Application()
    FederationServer(identity, trust, hub).add_routes(app)
    runner = await listen(app, "127.0.0.1", 0, tls.server_context(identity, trust))
    command = [sys.executable, __file__, "--suite", options.suite, "--port", str(runner.addresses[0][1])]
    members = [await asyncio.create_subprocess_exec(*command, "--folder", str(folder), "--name", n) for n in names]
    while set(hub.participants) != set(names):  # noqa: ASYNC110 before the first round, which is not counted
        await asyncio.sleep(0.05)

    async def observe(report: RoundReport) -> None:
        if not report.final:
            print(f"round {report.round}", flush=True)

    async with Node.aggregator([(identity, trust)], hub) as node:
        context = node.context(TASK)
        learners = [RemoteLearner(context, name) for name in names]
        spec = spec_for(options.params, options.rounds)
        checkpoint = Checkpoint(folder / "checkpoint")
        await aggregate(spec, learners, name="cloud", layer="cloud", checkpoint=checkpoint, observe=observe)
        for member in members:
            await member.wait()
    await runner.cleanup()
    await hub.close()


async def follow(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    url = f"https://127.0.0.1:{options.port}"
    async with Node.member(*load(folder, options.name, options.suite), url, folder / options.name) as node:
        await serve(node.context(TASK), Noise(options.name), aggregator="cloud")


def load(folder: Path, name: str, suite: Any) -> tuple[Identity, TrustStore]:
    issued = folder / "ca" / "issued" / name
    return Identity.load(issued, suite), TrustStore.load(issued, suite)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", choices=pki.SUITES, required=True)
    parser.add_argument("--ends", type=int, default=10)
    parser.add_argument("--params", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--name")
    arguments = parser.parse_args()
    if arguments.name:
        asyncio.run(follow(arguments))
    else:
        with TemporaryDirectory(prefix="fedfab-bench-") as temporary:
            asyncio.run(lead(arguments, Path(temporary)))
