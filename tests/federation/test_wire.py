"""The calls of the protocol, right and wrong callers, over real TLS."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from federation.blobs import BlobStore
from federation.client import Link
from federation.errors import FederationError, RefusedError, UnreachableError
from federation.mailbox import Delivery
from federation.server import Limits
from federation.wire import PREFIX, Body, decode, encode, join, split
from tests.federation.conftest import World, aggregating
from tests.federation.proxy import Proxy
from trust import tls
from trust.envelope import Header, seal
from trust.keys import SuiteName

_ids = itertools.count()


def letter(world: World, sender: str, recipient: str, suite: SuiteName = "intl", size: int = 2) -> bytes:
    """A sealed message."""
    identity, trust = world.identity(sender, suite)
    to = trust.verify((world.ca / "issued" / recipient / f"{suite}.crt").read_bytes())
    header = Header(f"id{next(_ids)}", "task", "kind", sender, recipient, 1, 0, suite)
    return seal(identity, to, header, bytes(size))


@pytest.fixture
async def link(world: World, suite_name: SuiteName) -> AsyncIterator[Link]:
    """gateway-a with a session open."""
    async with world.link("gateway-a", suite_name) as link:
        await link.hello()
        yield link


@pytest.mark.clause("8.5.1")
async def test_a_session_agrees_on_version_and_suite(world: World, suite_name: SuiteName) -> None:
    async with world.link("gateway-a", suite_name) as link:
        session = await link.hello()
    assert session.version == 1
    assert session.aggregator.name == "cloud"
    assert session.aggregator.suite == suite_name
    assert set(session.participants) == {"cloud", "gateway-a"}


@pytest.mark.clause("8.5.1")
@pytest.mark.parametrize(
    ("offer", "named"),
    [
        ({"versions": [7, 8], "suites": ["intl"]}, ["[7, 8]", "[1]"]),
        ({"versions": [1], "suites": ["gm"]}, ["['gm']", "['intl']"]),
    ],
)
async def test_with_nothing_in_common_both_lists_are_named(
    world: World, offer: dict[str, object], named: list[str]
) -> None:
    context = tls.client_context(*world.identity("gateway-a", "intl"))
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{world.url('intl')}{PREFIX}/hello", json=offer, ssl=context) as response,
    ):
        error = (await response.json())["error"]
    assert response.status == 406
    assert error["code"] == "FF-FED-012"
    assert all(text in error["message"] for text in named)
    assert list(world.hub.participants) == []


async def test_a_message_goes_through_once(world: World, link: Link, suite_name: SuiteName) -> None:
    sealed = letter(world, "gateway-a", "cloud", suite_name)
    for _ in range(2):
        await link.post(sealed, None, [])
    assert [one.sealed for one in await world.hub.mailbox.fetch("cloud")] == [sealed]


async def test_nobody_speaks_in_the_name_of_another(world: World, link: Link, suite_name: SuiteName) -> None:
    with pytest.raises(RefusedError, match='"gateway-a" sent a message in the name of "gateway-b"') as refusal:
        await link.post(letter(world, "gateway-b", "cloud", suite_name), None, [])
    assert (refusal.value.code, refusal.value.status) == ("FF-FED-011", 403)
    assert await world.hub.mailbox.fetch("cloud") == []


async def test_a_stranger_gets_no_mail(world: World, link: Link, suite_name: SuiteName) -> None:
    with pytest.raises(RefusedError, match='no participant "gateway-c"'):
        await link.post(letter(world, "gateway-a", "gateway-c", suite_name), None, [])


@pytest.mark.parametrize("call", ["hello", "poll"])
async def test_an_operator_takes_no_part(world: World, call: str) -> None:
    async with world.link("operator") as link:
        with pytest.raises(RefusedError, match=r"FF-FED-011.*operator"):
            await (link.hello() if call == "hello" else link.poll(0))


async def test_without_a_certificate_nothing_is_answered(world: World) -> None:
    context = tls.client_context(*world.identity("gateway-a", "intl"))
    naked = type(context)(context.protocol)
    naked.check_hostname, naked.verify_mode = False, context.verify_mode.CERT_NONE
    naked.trust = context.trust  # type: ignore[attr-defined]
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            async with http.post(f"{world.url('intl')}{PREFIX}/hello", ssl=naked):
                pass


async def test_too_large_a_message_is_refused(ca: Path, tmp_path: Path) -> None:
    async with aggregating(ca, tmp_path, Limits(message_bytes=4096)) as world, world.link("gateway-a") as link:
        await link.hello()
        await link.post(letter(world, "gateway-a", "cloud", size=1024), None, [])
        with pytest.raises(RefusedError, match="FF-FED-017"):
            await link.post(letter(world, "gateway-a", "cloud", size=8192), None, [])


async def test_each_reads_only_its_own_mail(world: World, link: Link, suite_name: SuiteName) -> None:
    async with world.link("gateway-b", suite_name) as other:
        await other.hello()
        sealed = letter(world, "gateway-a", "gateway-b", suite_name)
        await link.post(sealed, None, [])
        (mail,) = await other.poll(0)
        assert mail.sealed == sealed
        await link.ack([mail.cursor])  # another's cursor: nothing happens
        assert len(await world.hub.mailbox.fetch("gateway-b")) == 1
        await other.ack([mail.cursor])
        assert await world.hub.mailbox.fetch("gateway-b") == []


async def test_an_acknowledgement_may_travel_with_a_message(world: World, link: Link, suite_name: SuiteName) -> None:
    async with world.link("gateway-b", suite_name) as other:
        await other.hello()
        await other.post(letter(world, "gateway-b", "gateway-a", suite_name), None, [])
        (mail,) = await link.poll(0)
        await link.post(letter(world, "gateway-a", "gateway-b", suite_name), None, [mail.cursor])
    assert await world.hub.mailbox.fetch("gateway-a") == []


@pytest.fixture
def stored(tmp_path: Path) -> tuple[BlobStore, str, bytes]:
    """A blob of gateway-a on its own disk, of a few megabytes."""
    blobs, name, data = BlobStore(tmp_path / "mine"), f"gateway-a.{os.urandom(16).hex()}", os.urandom(5_000_001)
    (tmp_path / "mine" / name).write_bytes(data)
    return blobs, name, data


async def test_a_blob_is_for_the_recipients_of_the_message_that_names_it(
    world: World, link: Link, suite_name: SuiteName, stored: tuple[BlobStore, str, bytes]
) -> None:
    blobs, name, data = stored
    async with world.link("gateway-b", suite_name) as friend, world.link("gateway-c", suite_name) as stranger:
        await friend.hello()
        await stranger.hello()
        await link.upload(blobs, name, resume=False)
        await link.post(letter(world, "gateway-a", "gateway-b", suite_name), (name, len(data)), [])
        assert b"".join([piece async for piece in friend.download(name)]) == data
        with pytest.raises(RefusedError, match="FF-FED-013"):
            [piece async for piece in stranger.download(name)]
        with pytest.raises(RefusedError, match="FF-FED-013"):
            await stranger.upload(blobs, name, resume=False)
        (mail,) = await friend.poll(0)
        await friend.ack([mail.cursor])
        with pytest.raises(RefusedError, match="FF-FED-013"):
            [piece async for piece in friend.download(name)]
    assert world.hub.blobs.size(name) == 0


async def test_a_message_cannot_name_a_blob_that_is_not_there(
    world: World, link: Link, suite_name: SuiteName, stored: tuple[BlobStore, str, bytes]
) -> None:
    _, name, data = stored
    with pytest.raises(RefusedError, match="of which 0 have arrived"):
        await link.post(letter(world, "gateway-a", "cloud", suite_name), (name, len(data)), [])
    assert await world.hub.mailbox.fetch("cloud") == []


async def test_blobs_go_on_where_the_line_was_cut(world: World, stored: tuple[BlobStore, str, bytes]) -> None:
    blobs, name, data = stored
    async with (
        Proxy(world.ports["intl"], cuts=[2_000_000, 1_500_000]) as proxy,
        world.link("gateway-a", port=proxy.port) as link,
    ):
        await link.hello()
        with pytest.raises(UnreachableError):
            await link.upload(blobs, name, resume=False)
        async with asyncio.timeout(20):
            # what had come is still being written when we see the cut
            while not (arrived := world.hub.blobs.size(name)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert arrived < len(data)
        with pytest.raises(UnreachableError):
            await link.upload(blobs, name, resume=True)
        kept = world.hub.blobs.size(name)
        assert kept >= arrived  # a cut may lose what was under way, never what had arrived
        before = len(proxy.passed)
        await link.upload(blobs, name, resume=True)
        assert proxy.cut == 2
        assert len(proxy.passed) - before < len(data) - kept + 100_000
        await link.post(letter(world, "gateway-a", "cloud"), (name, len(data)), [])
        before = len(proxy.passed)
        proxy.cuts = [2_500_000, 1_000_000]
        assert b"".join([piece async for piece in link.download(name)]) == data
        assert proxy.cut == 4
        assert len(proxy.passed) - before < 1.5 * len(data)  # what had arrived was not sent again


async def test_bytes_that_were_still_being_written_when_we_asked_are_no_refusal(
    world: World, link: Link, stored: tuple[BlobStore, str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, name, data = stored

    async def pieces() -> AsyncIterator[bytes]:
        yield data[:1_000_000]

    await world.hub.blobs.write(name, 0, len(data), pieces())
    answers = [700_000]  # what stood there a moment before
    real = link._arrived

    async def late(blob: str) -> int:
        return answers.pop() if answers else await real(blob)

    monkeypatch.setattr(link, "_arrived", late)
    await link.upload(blobs, name, resume=True)
    assert b"".join([bytes(piece) async for piece in world.hub.blobs.read(name)]) == data


async def test_an_upload_at_the_wrong_place_is_refused_with_the_right_one(
    world: World, link: Link, stored: tuple[BlobStore, str, bytes]
) -> None:
    blobs, name, data = stored
    await link.upload(blobs, name, resume=False)
    with pytest.raises(RefusedError, match=f"stands at {len(data)} bytes") as refusal:
        await link.upload(blobs, name, resume=False)
    assert refusal.value.status == 409


async def test_plain_http_is_refused(world: World) -> None:
    with pytest.raises(FederationError, match="FF-FED-021"):
        Link(*world.identity("gateway-a", "intl"), "http://127.0.0.1:1")


async def test_an_aggregator_that_is_not_there_is_unreachable(world: World) -> None:
    async with Link(*world.identity("gateway-a", "intl"), "https://127.0.0.1:9") as link:
        with pytest.raises(UnreachableError, match="FF-FED-020"):
            await link.hello()


def test_lists_and_bodies_survive_the_wire() -> None:
    deliveries = [Delivery(1, b"one"), Delivery(2**40, b"")]
    assert split(join(deliveries)) == deliveries
    with pytest.raises(FederationError, match="FF-FED-019"):
        split(join(deliveries)[:-5])
    body = decode(encode(Body({"round": 3, "text": "ü"}, inline=b"tensors")))
    assert body.meta == {"round": 3, "text": "ü"}
    assert bytes(body.inline or b"") == b"tensors"
    with pytest.raises(FederationError, match="FF-FED-019"):
        decode(b"\0\0\0\2{}")
