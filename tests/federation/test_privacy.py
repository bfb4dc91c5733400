"""What leaves a plant: nothing readable on the wire, and no row even inside the sealed messages and blobs (clause 8.6)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from federation import node as node_module
from federation.aggregate import aggregate
from federation.local import LocalRelay
from federation.remote import RemoteLearner, serve
from federation.uplink import Uplink
from federation.wire import decode
from models.spec import NetworkSpec, RoundsSpec, TaskSpec
from tests.federation.conftest import World
from tests.federation.learners import Line
from tests.federation.proxy import Proxy
from trust import envelope
from trust.keys import SuiteName

SPEC = TaskSpec(name="wear", network=NetworkSpec(encoder=(200,), trunk=(200,)), rounds=RoundsSpec(max=2, deadline_s=20))
"""Large enough for its parameters to travel in blobs."""


def encodings(values: Iterable[float]) -> set[bytes]:
    """How a value may look in bytes: as a binary number of either width and order, or as decimals."""
    found: set[bytes] = set()
    for value in values:
        found |= {struct.pack(form, value) for form in ("<d", ">d", "<f", ">f")}
        found.add(f"{value:.6f}".encode())
    return found


@pytest.mark.clause("8.6")
@pytest.mark.clause("9.4.1.2a")
async def test_no_row_leaves_the_plant(world: World, suite_name: SuiteName, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole task is recorded, outside and inside the seals, and searched for every value of the member's rows."""
    opened: list[bytes] = []

    def unseal(*arguments: object) -> tuple[envelope.Header, bytes]:
        header, body = envelope.unseal(*arguments)  # type: ignore[arg-type]
        opened.append(body)
        return header, body

    blobs: list[bytes] = []

    def opening(relay: type[LocalRelay | Uplink]) -> None:
        """Also what recipients open of blobs."""
        real = relay.open

        async def open_(self: Any, *arguments: Any) -> bytearray:
            content = await real(self, *arguments)
            blobs.append(bytes(content))
            return content

        monkeypatch.setattr(relay, "open", open_)

    opening(LocalRelay)
    opening(Uplink)
    monkeypatch.setattr(node_module, "unseal", unseal)
    end = Line(SPEC, "gateway-a", samples=7)
    async with Proxy(world.ports[suite_name]) as proxy, world.aggregator() as cloud, asyncio.timeout(60):
        async with world.member("gateway-a", suite_name, proxy.port) as member:
            serving = asyncio.create_task(serve(member.context("t"), end, aggregator="cloud"))
            await world.everybody(["gateway-a"])
            learner = RemoteLearner(cloud.context("t"), "gateway-a")
            outcome = await aggregate(SPEC, [learner], name="cloud", layer="cloud")
            await serving
        recorded = bytes(proxy.passed)
    inside = b"".join([*opened, *(bytes(decode(body).inline or b"") for body in opened), *blobs])
    assert len(blobs) >= 6  # models and updates of two rounds, evaluation, finish
    assert len(opened) >= 10  # both directions of describe, moments, two rounds, evaluation, finish
    for name, found in (
        ("head/0.bias", inside),
        ("trunk/0.weight", b"".join(blobs)),
    ):  # the search would find what is there
        assert outcome.params[name].tobytes()[-4:] in found
    private = encodings([*end.rows.flatten(), *end.labels, *end.rows.flatten().astype(np.float32)])
    assert [value for value in private if value in inside] == []
    assert [value for value in private if len(value) > 4 and value in recorded] == []
    for secret in (b"head/0.bias", b"samples", b"speed", b"task.start", b'"request"'):
        assert secret not in recorded
