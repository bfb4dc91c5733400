"""The protocol as a state machine: whatever a network and crashes do to it, every message is handled once, in order, and nothing is left.

Real nodes, mailboxes, outboxes, journals, handlers and calls (`tests.federation.simulation`), driven by hypothesis: requests and answers
are lost, cut, repeated and arrive when nobody expects them any more; members are cut off; any process is killed at any turn of its loop
and started again from what it had made durable. Meanwhile a whole task is trained.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from federation.aggregate import aggregate
from federation.checkpoint import Checkpoint
from federation.context import Message
from federation.errors import FederationError
from federation.node import Node
from federation.remote import RemoteLearner, serve
from federation.route import Route
from models.learner import Params
from models.spec import RoundsSpec, TaskSpec
from tests.federation.learners import Line
from tests.federation.simulation import CALLS, Fault, Loop, Network, Process, aggregator, member, simulated
from trust.identity import Identity, TrustStore

MEMBERS = ("gateway-a", "gateway-b")
EVERYBODY = ("cloud", *MEMBERS)
SPEC = TaskSpec(name="wear", rounds=RoundsSpec(max=3, deadline_s=1e6))
ROUTE = Route(piece_bytes=64 << 10)
LONG_S = 6 * 3600.0
SIZES = {"small": 0, "blob": 40_000, "huge": 0}
"""float32 numbers that go with a note; a huge one has control data too large for a message."""

faults = st.one_of(
    st.tuples(st.sampled_from(["request lost", "answer lost"]), st.just(0.0)),
    st.tuples(st.just("cut"), st.floats(0.0, 10.0)),
    st.tuples(st.sampled_from(["late", "repeated"]), st.sampled_from([0.02, 0.3, 5.0, 400.0])),
)


class Federation(RuleBasedStateMachine):
    """An aggregator and two members, and what they have said to each other."""

    ca: Path

    def __init__(self) -> None:
        super().__init__()
        self._simulated = simulated()
        self.loop: Loop = self._simulated.__enter__()
        self._folder = TemporaryDirectory(prefix="fedfab-machine-")
        self.network = Network()
        self.running: dict[str, Process] = {}
        self.nodes: dict[str, Node] = {}
        self.said: dict[tuple[str, str], list[int]] = defaultdict(list)  # tried, in order
        self.accepted: set[int] = set()
        self.begun: dict[tuple[str, str], list[int]] = defaultdict(list)  # handled, first time, in order
        self.handled: set[int] = set()
        self.wrong: list[str] = []
        self.model: Params | None = None
        self.over: set[str] = set()
        self.number = 0

    @initialize()
    def begin(self) -> None:
        for name in EVERYBODY:
            self.start(name)
        self.loop.spend(1.0)

    @rule(seconds=st.sampled_from([0.005, 0.05, 1.0, 10.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.spend(seconds)

    @rule(
        sender=st.sampled_from(EVERYBODY),
        to=st.sampled_from(EVERYBODY),
        size=st.sampled_from(sorted(SIZES)),
        troubles=st.lists(st.tuples(st.sampled_from(CALLS), faults), max_size=4),
    )
    def somebody_says_something(self, sender: str, to: str, size: str, troubles: list[tuple[str, Fault]] = ()) -> None:  # type: ignore[assignment]
        for call, fault in troubles:
            self.network.faults[call].append(fault)
        if sender != to and sender in self.nodes and to in self.nodes[sender].participants:
            self.number += 1
            self.said[sender, to].append(self.number)
            process = self.running[sender]
            self.loop.create_task(self.say(self.nodes[sender], to, self.number, size), context=process.context.copy())

    @rule(name=st.sampled_from(MEMBERS), cut=st.booleans())
    def line_is_cut_or_mended(self, name: str, cut: bool) -> None:
        (self.network.cut_off.add if cut else self.network.cut_off.discard)(name)

    @rule(name=st.sampled_from(EVERYBODY), turns=st.integers(0, 60))
    def process_is_killed(self, name: str, turns: int) -> None:
        if name in self.running:
            self.loop.step(turns)
            self.nodes.pop(name, None)
            self.running.pop(name).kill()
            if name == "cloud":
                self.network.server = self.network.app = None

    @precondition(lambda self: len(self.running) < len(EVERYBODY))
    @rule(name=st.sampled_from(EVERYBODY))
    def process_is_started(self, name: str) -> None:
        if name not in self.running:
            self.start(name)

    def teardown(self) -> None:
        try:
            if self.running or self.said:
                self.settle()
                self.check()
        finally:
            for process in self.running.values():
                process.kill()
            for stray in self.network.strays:
                stray.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self._simulated.__exit__(None, None, None)
            self._folder.cleanup()

    def settle(self) -> None:
        """Everything is mended; then it is given time."""
        self.network.faults.clear()
        self.network.cut_off.clear()
        for name in EVERYBODY:
            self.process_is_started(name)
        for _ in range(60):
            self.loop.spend(LONG_S / 60)
            self.loop.run_until_complete(
                self.hub.sweep(age_s=-1.0)
            )  # as if a week had passed: uploads that nobody names
            if self.accepted <= self.handled and self.over == set(EVERYBODY) and not self.left():
                return

    def check(self) -> None:
        for name, process in self.running.items():
            if process.main.done():
                self.wrong.append(f"{name} ended: {process.main.exception()!r}")
        assert not self.wrong, self.wrong
        assert self.accepted - self.handled == set(), "lost"
        for pair, begun in self.begun.items():
            assert begun == [number for number in self.said[pair] if number in begun], "out of order"
        assert self.over == set(EVERYBODY), "the task does not end"
        assert self.left() == [], "left behind"
        assert self.model is not None
        for name, value in self.undisturbed().items():
            np.testing.assert_array_equal(self.model[name], value)

    def left(self) -> list[str]:
        """Blobs and messages that nobody wants any more."""
        folders = [self.folder / "cloud" / "blobs", *(self.folder / m / "outbox" for m in MEMBERS)]
        found = [str(path) for folder in folders for path in folder.iterdir()]
        return found + [m for m in MEMBERS if self.nodes[m].relay.meter.outbox.depth]  # type: ignore[union-attr]

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    def start(self, name: str) -> None:
        self.running[name] = Process(
            self.loop, self.lead if name == "cloud" else lambda process: self.follow(name, process)
        )

    async def lead(self, process: Process) -> None:
        """The aggregator: train the task, then tell everybody that it is over."""
        node, self.hub = aggregator(process, self.network, self.identity("cloud"), self.home("cloud"))
        async with node, asyncio.TaskGroup() as tasks:
            self.nodes["cloud"] = node
            tasks.create_task(self.listen(node))
            while not set(MEMBERS) <= set(node.participants):  # noqa: ASYNC110 — nothing in the product waits for it
                await asyncio.sleep(0.1)
            if "cloud" in self.over:
                return await asyncio.Event().wait()  # type: ignore[return-value]
            context = node.context("t")
            learners = [RemoteLearner(context, name) for name in MEMBERS]
            outcome = await aggregate(
                SPEC, learners, name="cloud", layer="cloud", checkpoint=Checkpoint(self.home("cloud"))
            )
            self.model = outcome.params
            for name in MEMBERS:
                await node.send(name, "task.over", {})
            await context.close()
            self.over.add("cloud")

    async def follow(self, name: str, process: Process) -> None:
        """A member: serve the task until it is told that it is over."""
        node = member(process, self.network, self.identity(name), self.home(name), ROUTE)
        async with node, asyncio.TaskGroup() as tasks:
            self.nodes[name] = node
            serving = None
            if name not in self.over:
                serving = tasks.create_task(serve(node.context("t"), Line(SPEC, name), aggregator="cloud"))
            tasks.create_task(self.listen(node, serving))

    async def listen(self, node: Node, serving: asyncio.Task[None] | None = None) -> None:
        """Handle one note after another."""
        async for message in node.unclaimed():
            if message.header.kind == "task.over":
                if serving is not None:
                    serving.cancel()
                await node.context("t").close()
                self.over.add(node.name)
                await message.done()
            else:
                await self.handle(node, message)

    async def handle(self, node: Node, message: Message) -> None:
        number, pair = message.meta["number"], (message.header.sender, node.name)
        if number in self.handled:
            self.wrong.append(f"{number} is handled again")
        if number not in self.begun[pair]:
            self.begun[pair].append(number)
        params = await message.params()
        if message.meta["size"] == "blob" and (params is None or not (params["head/0.bias"] == number).all()):
            self.wrong.append(f"{number} came with other parameters")
        await message.done()
        self.handled.add(number)

    async def say(self, node: Node, to: str, number: int, size: str) -> None:
        meta: dict[str, Any] = {"number": number, "size": size}
        if size == "huge":
            meta["text"] = "x" * 800_000
        values = SIZES[size]
        params = {"head/0.bias": np.full(values, number, np.float32)} if values else None
        try:
            await node.send(to, "note.taken", meta, params=params)
            self.accepted.add(number)
        except (FederationError, ProcessLookupError):
            return

    def identity(self, name: str) -> tuple[Identity, TrustStore]:
        issued = self.ca / "issued" / name
        return Identity.load(issued, "intl"), TrustStore.load(issued, "intl")

    def home(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return home

    def undisturbed(self) -> Params:
        """What the same task comes to in one process."""
        if not hasattr(Federation, "_undisturbed"):
            ends = [Line(SPEC, name) for name in MEMBERS]
            outcome = self.loop.run_until_complete(aggregate(SPEC, ends, name="cloud", layer="cloud"))
            Federation._undisturbed = outcome.params  # type: ignore[attr-defined]
        params: Params = Federation._undisturbed  # type: ignore[attr-defined]
        return params


@pytest.mark.clause("9.4.3l")
def test_whatever_happens_each_message_is_handled_once_and_in_order(ca: Path) -> None:
    Federation.ca = ca
    run_state_machine_as_test(
        Federation,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
