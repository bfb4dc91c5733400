"""Sources that append at the same time share commits; each is told how its own batch fared."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import StoreFullError
from gateway.store import Store
from gateway.store.together import Together
from tests.gateway.plants import snapshot


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


async def test_batches_that_wait_share_a_commit(store: Store) -> None:
    with ThreadPoolExecutor(1) as writer:
        together = Together(store, writer)

        async def source(name: str) -> None:
            for number in range(10):
                block = await together.append(name, snapshot(number, x=float(number)), str(number))
                assert len(block) == 1

        await asyncio.gather(*(source(f"s{i}") for i in range(20)))
    assert store.counts()["raw"] == {f"s{i}": 10 for i in range(20)}
    assert {store.cursor(f"s{i}") for i in range(20)} == {"9"}
    assert store.file.commits_done <= 12


async def test_all_are_told_of_a_failure_and_the_next_begins_anew(store: Store) -> None:
    with ThreadPoolExecutor(1) as writer:
        together = Together(store, writer)
        store.full = "a test"
        found = await asyncio.gather(
            *(together.append(f"s{i}", snapshot(1, x=1.0), None) for i in range(3)), return_exceptions=True
        )
        assert [type(each) for each in found] == [StoreFullError] * 3
        store.full = None
        await together.append("s0", snapshot(1, x=1.0), "1")
    assert store.counts()["raw"] == {"s0": 1}


async def test_a_source_that_is_stopped_takes_nobody_with_it(store: Store) -> None:
    with ThreadPoolExecutor(1) as writer:
        together = Together(store, writer)
        first = asyncio.create_task(together.append("s0", snapshot(1, x=1.0), "1"))
        second = asyncio.create_task(together.append("s1", snapshot(1, x=1.0), "1"))
        await asyncio.sleep(0)
        first.cancel()
        assert len(await second) == 1
    assert store.counts()["raw"]["s1"] == 1
