"""Nodes and contexts: each message handled once, over repetitions, restarts and cut lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
import pytest

from federation.context import Message
from federation.errors import FederationError, MemberError
from federation.mailbox import Parcel
from federation.node import Node
from federation.remote import RemoteLearner, serve
from models.learner import Params, Update
from models.spec import RoundsSpec, TaskSpec
from tests.federation.conftest import World
from tests.federation.learners import Line
from tests.federation.proxy import Proxy
from trust.keys import SuiteName

T = TypeVar("T")
SPEC = TaskSpec(name="wear", rounds=RoundsSpec(max=1, deadline_s=20))
PARAMS: Params = {
    "trunk/0.weight": np.arange(3_000_000, dtype=np.float32).reshape(3000, 1000),
    "trunk/0.bias": np.ones(7, np.float32),
}


async def soon(work: Awaitable[T]) -> T:
    """What must not take long."""
    async with asyncio.timeout(20):
        return await work


@asynccontextmanager
async def pair(world: World, suite: SuiteName = "intl", port: int | None = None) -> AsyncIterator[tuple[Node, Node]]:
    """The aggregator and gateway-a, who have met."""
    async with world.aggregator() as cloud, world.member("gateway-a", suite, port) as member:
        await soon(member.connected.wait())
        yield cloud, member


async def first(node: Node) -> Message:
    """The next message for the participant as a whole."""
    return await soon(anext(node.unclaimed()))


async def emptied(world: World) -> None:
    """Wait until gateway-a has acknowledged all its mail."""
    async with asyncio.timeout(20):
        while await world.hub.mailbox.fetch("gateway-a"):  # noqa: ASYNC110 — nothing in the product waits for it
            await asyncio.sleep(0.01)


def equal(one: Params | None, other: Params) -> bool:
    return one is not None and one.keys() == other.keys() and all((one[name] == other[name]).all() for name in other)


@pytest.mark.clause("8.7.1")
async def test_parameters_go_both_ways_bit_for_bit(world: World, suite_name: SuiteName) -> None:
    async with pair(world, suite_name) as (cloud, member):
        here, there = cloud.context("t"), member.context("t")
        await here.send("gateway-a", "fit", {"round": 1}, PARAMS)
        request = await soon(there.receive())
        assert (request.header.sender, request.header.kind, request.meta) == ("cloud", "fit", {"round": 1})
        assert equal(await request.params(), PARAMS)
        await there.send("cloud", "note", {"x": 1}, PARAMS)
        note = await soon(here.receive())
        assert equal(await note.params(), PARAMS)
        await note.done()
        await request.done()


async def test_a_broadcast_is_sealed_once(world: World) -> None:
    async with pair(world) as (cloud, a), world.member("gateway-b", "intl") as b:
        await soon(b.connected.wait())
        await cloud.context("t").broadcast(["gateway-a", "gateway-b"], "fit", {}, PARAMS)
        assert len(list((world.folder / "blobs").iterdir())) == 1
        for node in (a, b):
            message = await soon(node.context("t").receive())
            assert equal(await message.params(), PARAMS)
            await message.done()
    assert list((world.folder / "blobs").iterdir()) == []


async def test_members_of_both_suites_share_a_task_but_no_blob(world: World) -> None:
    async with pair(world, "intl") as (cloud, a), world.member("gateway-b", "gm") as b:
        await soon(b.connected.wait())
        await cloud.context("t").broadcast(["gateway-a", "gateway-b"], "fit", {}, PARAMS)
        assert len(list((world.folder / "blobs").iterdir())) == 2
        for node in (a, b):
            assert equal(await (await soon(node.context("t").receive())).params(), PARAMS)


async def test_what_is_not_done_comes_again_and_what_is_done_does_not(world: World) -> None:
    async with pair(world) as (cloud, member):
        for number in (1, 2, 3):
            await cloud.send("gateway-a", "task.start", {"number": number})
        for number in (1, 2, 3):
            message = await first(member)
            assert message.meta == {"number": number}
            if number != 2:
                await message.done()
    async with pair(world) as (cloud, member):
        message = await first(member)
        assert message.meta == {"number": 2}
        await message.done()
    assert await world.hub.mailbox.fetch("gateway-a") == []


@pytest.mark.parametrize("handled", [True, False])
async def test_a_repeated_message_is_taken_once(world: World, handled: bool) -> None:
    """A relay that repeats what it carried, before or after it was acknowledged, gets nothing done twice."""
    async with pair(world) as (cloud, member):
        await cloud.send("gateway-a", "task.start", {"number": 1})
        (delivery,) = await world.hub.mailbox.fetch("gateway-a")
        message = await first(member)
        if handled:
            await message.done()
            await emptied(world)
        await world.hub.mailbox.put([Parcel(delivery.sealed)])
        await cloud.send("gateway-a", "task.start", {"number": 2})
        assert (await first(member)).meta == {"number": 2}


async def test_a_message_between_strangers_is_dropped_not_delivered(world: World) -> None:
    """A relay that changes a byte is found out; what comes after is delivered."""
    async with pair(world) as (cloud, member):
        await cloud.send("gateway-a", "task.start", {"number": 1})
        (delivery,) = await world.hub.mailbox.fetch("gateway-a")
        await (await first(member)).done()
        forged = delivery.sealed.replace(b"task.start", b"task.staRt")
        await world.hub.mailbox.put([Parcel(forged[:-1] + bytes([forged[-1] ^ 1]))])
        await cloud.send("gateway-a", "task.start", {"number": 2})
        assert (await first(member)).meta == {"number": 2}


async def test_messages_wait_for_their_task_to_be_opened(world: World) -> None:
    async with pair(world) as (cloud, member):
        await cloud.context("t").send("gateway-a", "fit", {"round": 1})
        await cloud.send("gateway-a", "task.start", {})
        await (await first(member)).done()  # came after the other, which is waiting
        assert (await soon(member.context("t").receive())).meta == {"round": 1}


async def test_a_closed_task_is_deaf(world: World) -> None:
    async with pair(world) as (cloud, member):
        context = member.context("t")
        await cloud.context("t").send("gateway-a", "fit", {"round": 1})
        await soon(context.receive())
        await context.close()
        await cloud.context("t").send("gateway-a", "fit", {"round": 2})
        await emptied(world)


async def test_what_comes_behind_the_word_that_opens_a_task_again_is_heard(world: World) -> None:
    """However late the word is read: what was said behind it must not go down with the task before it."""
    async with pair(world) as (cloud, member):
        old = member.context("t")
        await old.close()
        await cloud.send("gateway-a", "task.start", {}, task="t")
        await cloud.context("t").send("gateway-a", "describe", {"number": 1})
        start = await first(member)
        await cloud.context("t").send("gateway-a", "describe", {"number": 2})
        await old.close()
        again = member.context("t")
        await start.done()
        assert [(await soon(again.receive())).meta["number"] for _ in range(2)] == [1, 2]


async def test_nobody_can_be_told_who_never_came(world: World) -> None:
    async with pair(world) as (cloud, _):
        with pytest.raises(FederationError, match='FF-FED-010: there is no participant "gateway-c"'):
            await cloud.send("gateway-c", "task.start", {})


async def test_more_parameters_than_expected_are_not_even_fetched(world: World) -> None:
    async with pair(world) as (cloud, member):
        await member.context("t").send("cloud", "note", {}, PARAMS)
        message = await soon(cloud.context("t").receive())
        with pytest.raises(FederationError, match="FF-FED-024"):
            await message.params(max_bytes=1000)


async def test_a_gateway_starts_without_its_aggregator_and_delivers_later(world: World) -> None:
    async with pair(world):
        pass
    async with (
        Proxy(world.ports["intl"], cuts=[1, 1, 1]) as proxy,
        world.aggregator() as cloud,
        world.member("gateway-a", "intl", proxy.port) as member,
    ):
        await member.send("cloud", "task.report", {"round": 1}, params=PARAMS)
        message = await first(cloud)
        assert proxy.cut == 3
        assert message.meta == {"round": 1}
        assert equal(await message.params(), PARAMS)


async def test_a_line_cut_in_the_middle_of_a_blob_loses_nothing(world: World) -> None:
    async with Proxy(world.ports["intl"]) as proxy, pair(world, port=proxy.port) as (cloud, member):
        proxy.cuts = [5_000_000, 5_000_000]
        for number in (1, 2):
            await member.send("cloud", "task.report", {"number": number}, params=PARAMS)
        for number in (1, 2):
            message = await first(cloud)
            assert message.meta == {"number": number}
            assert equal(await message.params(), PARAMS)
        assert proxy.cut == 2


async def test_an_aggregator_with_a_new_database_is_heard_again(world: World) -> None:
    """A cursor from before is worth nothing then; the member asks from the start."""
    async with pair(world) as (cloud, member):
        for _ in range(3):
            await cloud.send("gateway-a", "task.start", {"number": 1})
            await (await first(member)).done()
        member.relay._after = 10_000  # type: ignore[attr-defined]
        member.relay._lost(FederationError("FF-FED-020", "as if the line had broken"))  # type: ignore[attr-defined]
        await cloud.send("gateway-a", "task.start", {"number": 2})
        assert (await first(member)).meta == {"number": 2}


class Failing(Line):
    async def fit(self, round_: int, params: Params) -> Update:
        raise FederationError("FF-FED-030", "no labelled rows", hint="look at the label")


async def test_a_member_s_error_arrives_with_its_code_and_may_be_asked_again(world: World) -> None:
    end = Failing(SPEC, "gateway-a")
    async with pair(world) as (cloud, member):
        serving = asyncio.create_task(serve(member.context("t"), end, aggregator="cloud"))
        remote = RemoteLearner(cloud.context("t"), "gateway-a")
        with pytest.raises(MemberError, match="FF-FED-030: no labelled rows"):
            await soon(remote.fit(1, {"head/0.bias": np.zeros(1, np.float32)}))
        mended = RemoteLearner(cloud.context("t"), "gateway-a")
        end.__class__ = Line
        assert (await soon(mended.fit(1, {"head/0.bias": np.zeros(1, np.float32)}))).samples == 20
        serving.cancel()


async def test_the_same_request_is_answered_again_without_training_again(world: World) -> None:
    end = Line(SPEC, "gateway-a")
    model = {**PARAMS, "head/0.bias": np.zeros(1, np.float32)}
    async with pair(world) as (cloud, member):
        serving = asyncio.create_task(serve(member.context("t"), end, aggregator="cloud"))
        one = await soon(RemoteLearner(cloud.context("t"), "gateway-a").fit(1, model))
        serving.cancel()
    async with pair(world) as (cloud, _):  # both sides were restarted, and nobody serves the task any more
        two = await soon(RemoteLearner(cloud.context("t"), "gateway-a").fit(1, dict(model)))
    assert equal(two.params, one.params)
    assert end.fitted == [1]


async def test_a_request_at_work_when_the_process_ends_is_done_by_the_next(world: World) -> None:
    class Stuck(Line):
        started = asyncio.Event()

        async def fit(self, round_: int, params: Params) -> Update:
            self.started.set()
            await asyncio.Event().wait()
            raise AssertionError

    async with world.aggregator() as cloud:
        async with world.member("gateway-a", "intl") as member:
            await soon(member.connected.wait())
            serving = asyncio.create_task(serve(member.context("t"), Stuck(SPEC, "gateway-a"), aggregator="cloud"))
            asking = asyncio.create_task(
                RemoteLearner(cloud.context("t"), "gateway-a").fit(1, {"head/0.bias": np.zeros(1, np.float32)})
            )
            await soon(Stuck.started.wait())
            serving.cancel()
            await asyncio.wait([serving])
        async with world.member("gateway-a", "intl") as member:
            serving = asyncio.create_task(serve(member.context("t"), Line(SPEC, "gateway-a"), aggregator="cloud"))
            assert (await soon(asking)).samples == 20
            serving.cancel()


async def test_an_abandoned_request_is_taken_back_and_its_work_stopped(world: World) -> None:
    class Stuck(Line):
        def __init__(self) -> None:
            super().__init__(SPEC, "gateway-a")
            self.started, self.stopped = asyncio.Event(), asyncio.Event()

        async def fit(self, round_: int, params: Params) -> Update:
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
            raise AssertionError

    end = Stuck()
    async with pair(world) as (cloud, member):
        serving = asyncio.create_task(serve(member.context("t"), end, aggregator="cloud"))
        asking = asyncio.create_task(RemoteLearner(cloud.context("t"), "gateway-a").fit(1, PARAMS))
        await soon(end.started.wait())
        asking.cancel()
        await soon(end.stopped.wait())
        await emptied(world)
        serving.cancel()
    assert list((world.folder / "blobs").iterdir()) == []


async def test_bytes_under_way_are_progress(world: World) -> None:
    """A member on a thin line is not silent while its update still flows."""
    heard = []
    async with pair(world) as (cloud, member):
        with cloud.context("t").hearing("gateway-a", lambda: heard.append(1)):
            await member.send("cloud", "task.report", {}, params=PARAMS)
            await first(cloud)
    assert len(heard) > 3
