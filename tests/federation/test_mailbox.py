"""The mailbox against a model of it, and what it promises one by one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from federation import tables
from federation.blobs import BlobStore
from federation.database import Database, connect
from federation.errors import RefusedError
from federation.mailbox import Mailbox, Parcel
from trust.envelope import Header, seal
from trust.errors import TrustError
from trust.identity import Identity, TrustStore

_ids = itertools.count()


@pytest.fixture(scope="session")
def envelope(ca: Path) -> Envelope:
    return Envelope(ca)


class Envelope:
    """Sealed messages by the dozen."""

    def __init__(self, ca: Path) -> None:
        self._identity = Identity.load(ca / "issued" / "cloud", "intl")
        trust = TrustStore.load(ca / "issued" / "cloud", "intl")
        self._peers = {
            name: trust.verify((ca / "issued" / name / "intl.crt").read_bytes()) for name in ("gateway-a", "gateway-b")
        }

    def __call__(self, recipient: str = "gateway-a", message: str | None = None) -> bytes:
        header = Header(message or f"m{next(_ids)}", "task", "kind", "cloud", recipient, 1, 0, "intl")
        return seal(self._identity, self._peers[recipient], header, b"{}")


@pytest.fixture
async def mailbox(tmp_path: Path) -> AsyncIterator[Mailbox]:
    engine = connect(f"sqlite:///{tmp_path / 'mail.db'}")
    async with opened(engine, tmp_path) as box:
        yield box


class opened:  # noqa: N801 — reads as a verb
    """A mailbox on an engine, its tables made."""

    def __init__(self, engine: Engine, folder: Path, capacity: int = 10_000) -> None:
        tables.metadata.create_all(engine)
        self.engine, self.database = engine, Database(engine)
        self.blobs = BlobStore(folder / "blobs")
        self.mailbox = Mailbox(self.database, self.blobs, capacity)

    async def __aenter__(self) -> Mailbox:
        return self.mailbox

    async def __aexit__(self, *_: object) -> None:
        await self.database.close()
        self.engine.dispose()


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["gateway-a", "gateway-b"]), st.integers(0, 15)),
        st.tuples(st.just("fetch"), st.sampled_from(["gateway-a", "gateway-b"]), st.integers(0, 20)),
        st.tuples(st.just("ack"), st.sampled_from(["gateway-a", "gateway-b"]), st.integers(0, 20)),
        st.tuples(st.just("withdraw"), st.just("cloud"), st.integers(0, 15)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=operations)
def test_behaves_like_a_list_per_recipient(
    steps: list[tuple[str, str, int]], envelope: Envelope, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def run() -> None:
        folder = tmp_path_factory.mktemp("model")
        model: list[tuple[int, str, str, bytes]] = []  # cursor, recipient, id, sealed
        cursor = 0
        async with opened(connect(f"sqlite:///{folder / 'mail.db'}"), folder) as box:
            for what, name, number in steps:
                if what == "put":
                    sealed = envelope(name, f"{name}-{number}")
                    new = f"{name}-{number}" not in {row[2] for row in model}
                    assert await box.put([Parcel(sealed)]) == int(new)
                    if new:
                        cursor += 1
                        model.append((cursor, name, f"{name}-{number}", sealed))
                elif what == "fetch":
                    expected = [(c, s) for c, r, _, s in model if r == name and c > number]
                    assert [(d.cursor, d.sealed) for d in await box.fetch(name, number)] == expected
                elif what == "ack":
                    await box.ack(name, [number])
                    model = [row for row in model if not (row[1] == name and row[0] == number)]
                else:
                    gone = {f"gateway-a-{number}", f"gateway-b-{number}"}
                    await box.withdraw(name, gone)
                    model = [row for row in model if row[2] not in gone]

    asyncio.run(run())


async def test_a_cursor_is_never_used_again(mailbox: Mailbox, envelope: Envelope) -> None:
    await mailbox.put([Parcel(envelope())])
    (first,) = await mailbox.fetch("gateway-a")
    await mailbox.ack("gateway-a", [first.cursor])
    await mailbox.put([Parcel(envelope())])
    (second,) = await mailbox.fetch("gateway-a", first.cursor)
    assert second.cursor > first.cursor


async def test_a_waiting_reader_is_woken_by_the_message(mailbox: Mailbox, envelope: Envelope) -> None:
    reader = asyncio.create_task(mailbox.wait("gateway-a", 0, seconds=60))
    other = asyncio.create_task(mailbox.wait("gateway-b", 0, seconds=60))
    await asyncio.sleep(0)
    sealed = envelope()
    await mailbox.put([Parcel(sealed)])
    async with asyncio.timeout(5):
        assert [one.sealed for one in await reader] == [sealed]
    assert not other.done()
    other.cancel()


async def test_a_wait_ends_empty_handed(mailbox: Mailbox) -> None:
    assert await mailbox.wait("gateway-a", 0, seconds=0.01) == []


async def test_an_accepted_message_outlives_the_process(tmp_path: Path, envelope: Envelope) -> None:
    url = f"sqlite:///{tmp_path / 'mail.db'}"
    sealed = envelope()
    async with opened(connect(url), tmp_path) as box:
        await box.put([Parcel(sealed)])
    async with opened(connect(url), tmp_path) as box:
        assert [one.sealed for one in await box.fetch("gateway-a")] == [sealed]


async def test_a_blob_lives_as_long_as_the_last_message_that_names_it(tmp_path: Path, envelope: Envelope) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'mail.db'}")
    home = opened(engine, tmp_path)
    async with home as box:
        blob = await _blob(home.blobs, b"parameters")
        await box.put([Parcel(envelope("gateway-a"), blob), Parcel(envelope("gateway-b"), blob)])
        (first,) = await box.fetch("gateway-a")
        (second,) = await box.fetch("gateway-b")
        assert await box.may_read("gateway-a", blob)
        assert not await box.may_read("gateway-c", blob)
        await box.ack("gateway-a", [first.cursor])
        assert home.blobs.size(blob) == 10
        assert not await box.may_read("gateway-a", blob)
        await box.ack("gateway-b", [second.cursor])
        assert home.blobs.size(blob) == 0


async def test_a_full_mailbox_refuses_more_but_nothing_else(tmp_path: Path, envelope: Envelope) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'mail.db'}")
    async with opened(engine, tmp_path, capacity=2) as box:
        await box.put([Parcel(envelope()), Parcel(envelope())])
        with pytest.raises(RefusedError, match="FF-FED-014"):
            await box.put([Parcel(envelope())])
        assert await box.put([Parcel(envelope("gateway-b"))]) == 1


async def test_what_is_no_envelope_is_refused(mailbox: Mailbox) -> None:
    with pytest.raises(TrustError):
        await mailbox.put([Parcel(b"not sealed")])


async def test_writes_of_one_moment_share_commits(mailbox: Mailbox, envelope: Envelope) -> None:
    from sqlalchemy import event

    commits = []
    event.listen(mailbox._database.engine, "commit", lambda _: commits.append(1))
    await asyncio.gather(*(mailbox.put([Parcel(envelope())]) for _ in range(50)))
    assert len(await mailbox.fetch("gateway-a")) == 50
    assert len(commits) < 10


async def test_one_failing_write_does_not_undo_its_neighbours(mailbox: Mailbox, envelope: Envelope) -> None:
    def broken(_: object) -> list[str]:
        raise RuntimeError("disk full")

    good = [mailbox.put([Parcel(envelope())]) for _ in range(3)]
    results = await asyncio.gather(*good, mailbox.put([Parcel(envelope())], broken), return_exceptions=True)
    assert results[:3] == [1, 1, 1]
    assert isinstance(results[3], RuntimeError)
    assert len(await mailbox.fetch("gateway-a")) == 3


async def _blob(blobs: BlobStore, data: bytes) -> str:
    name = f"cloud.{'0' * 31}{next(_ids) % 10}"

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    await blobs.write(name, 0, len(data), pieces())
    return name
