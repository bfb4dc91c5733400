"""What leaves a plant: nothing readable on the wire, and no row even inside the sealed messages (clause 8.6)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterable

import numpy as np
import pytest

from federation import node as node_module
from federation.aggregate import aggregate
from federation.remote import RemoteLearner, serve
from federation.wire import decode
from models.parameters import to_bytes
from models.spec import RoundsSpec, TaskSpec
from tests.federation.conftest import World
from tests.federation.learners import Line
from tests.federation.proxy import Proxy
from trust import envelope
from trust.keys import SuiteName

SPEC = TaskSpec(name="wear", rounds=RoundsSpec(max=2, deadline_s=20))


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
    inside = b"".join(opened) + b"".join(bytes(decode(body).inline or b"") for body in opened)
    assert len(opened) >= 10  # both directions of describe, moments, two rounds, evaluation, finish
    assert (
        to_bytes({"head/0.bias": outcome.params["head/0.bias"]})[-4:] in inside
    )  # the search would find what is there
    private = encodings([*end.rows.flatten(), *end.labels, *end.rows.flatten().astype(np.float32)])
    assert [value for value in private if value in inside] == []
    assert [value for value in private if len(value) > 4 and value in recorded] == []
    for secret in (b"head/0.bias", b"samples", b"speed", b"task.start", b'"request"'):
        assert secret not in recorded
