"""The store within its bounds: what goes, what stays, what is counted, and that nobody notices the merging."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from connectors.contract import Quality, Sample
from gateway.config.store import StoreOptions
from gateway.errors import StoreFullError
from gateway.store import Labelling, Progress, Recipe, Result, Store
from gateway.store.raw import WINDOW
from gateway.store.upkeep import Upkeep
from tests.gateway.plants import SECOND, snapshot
from tests.gateway.test_store import block

DAY = 86_400 * SECOND
RECIPE = Recipe("one", ("a", "b"), Labelling("field"))
KB = 1e-6
"""Of a GB."""


class Clock:
    """Time that a test turns."""

    now = 1_000 * DAY

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db", now=clock) as opened:
        yield opened


def options(**raw: Any) -> StoreOptions:
    return StoreOptions.model_validate({"raw": raw, "keep_free_gb": 0})


def noise(n: int, seed: int = 0) -> list[Sample]:
    chance = random.Random(seed)
    return [Sample("x", chance.random(), Quality.GOOD, seed * SECOND + i, seed * SECOND + i) for i in range(n)]


def fill(store: Store, batches: int, source: str = "press") -> None:
    for number in range(batches):
        store.append_raw(source, noise(100, number), str(number))


@pytest.mark.clause("9.4.1.1f")
def test_beyond_its_bytes_the_oldest_go_and_every_drop_is_counted_for_good(store: Store, clock: Clock) -> None:
    fill(store, 100)
    upkeep = Upkeep(store, options(max_gb=50 * KB), [], now=clock)
    with structlog.testing.capture_logs() as logged:
        upkeep.tend()
        fill(store, 20)
        upkeep.tend()
    held = store.amounts()["raw"]["press"]
    assert held.bytes <= 50_000 < held.bytes + held.dropped_bytes // held.dropped_blocks
    assert (held.entries + held.dropped_entries, held.blocks + held.dropped_blocks) == (12_000, 120)
    assert [raw.id for raw in store.raw_blocks(0)][-1] == 120
    assert len(store.read_raw("press")) == held.entries
    assert store.cursor("press") == "19"
    assert len([each for each in logged if each["event"] == "the store drops its oldest data"]) == 1
    path = store.file.path
    store.close()
    with Store.open(path) as again:
        assert again.amounts()["raw"]["press"] == held


def test_what_is_older_than_its_days_goes_from_each_layer(store: Store, clock: Clock) -> None:
    store.declare("m1", RECIPE)
    for day in range(10):
        clock.now += DAY
        store.append_raw("press", snapshot(day, x=1.0), None)
        store.append_features("m1", block(day * 5, 5))
        store.append_results([Result(clock.now, "wear", "1", "m1", "00", {"y": [1.0]})])
    days = {"max_days": 3.5}
    bounds = StoreOptions.model_validate({"raw": days, "features": days, "results": days, "keep_free_gb": 0})
    wait = Upkeep(store, bounds, ["m1"], now=clock).tend()
    assert store.counts() == {"raw": {"press": 4}, "features": {"m1": 20}, "results": {"wear": 4}}
    assert wait == pytest.approx(3600)
    clock.now += int(0.49 * DAY)
    assert Upkeep(store, bounds, ["m1"], now=clock).tend() == pytest.approx(0.01 * 86_400)
    clock.now += 100 * DAY
    Upkeep(store, bounds, ["m1"], now=clock).tend()
    assert store.counts() == {"raw": {}, "features": {"m1": 5}, "results": {}}  # an end keeps its newest rows
    dropped = {layer: sum(each.dropped_entries for each in names.values()) for layer, names in store.amounts().items()}
    assert dropped == {"raw": 10, "features": 45, "results": 10}


def test_a_gateway_that_starts_before_its_clock_is_set_does_not_lose_what_it_reads_then(
    store: Store, clock: Clock
) -> None:
    fill(store, 1)
    today, clock.now = clock.now, 0
    fill(store, 1)
    clock.now = today
    Upkeep(store, options(max_days=1), [], now=clock).tend()
    assert store.counts()["raw"] == {"press": 200}


@pytest.mark.parametrize(("policy", "kept"), [("drop_oldest", 6), ("keep_unprepared", 20), ("stop", 40)])
def test_what_gives_way_is_chosen(store: Store, clock: Clock, policy: str, kept: int) -> None:
    fill(store, 40)
    store.declare("m1", RECIPE)
    store.save_progress({"m1": Progress(20, "")})
    upkeep = Upkeep(store, options(max_gb=6 * KB, when_full=policy), ["m1"], now=clock)
    upkeep.tend()
    held = store.amounts()["raw"]["press"]
    assert held.blocks == pytest.approx(kept, abs=1)
    if policy == "drop_oldest":
        assert held.unprepared == held.dropped_entries - 2000
        fill(store, 1)
    else:
        with pytest.raises(StoreFullError, match="FF-STORE-007"):
            fill(store, 1)
        assert store.cursor("press") == "39"
        upkeep.apply(options(max_gb=1, when_full=policy), ["m1"])
        upkeep.tend()
        fill(store, 1)


def test_a_full_disk_stops_growth_not_work(store: Store, clock: Clock) -> None:
    fill(store, 40)
    free = 10**9
    bounds = StoreOptions.model_validate({"keep_free_gb": 0.5})
    upkeep = Upkeep(store, bounds, [], now=clock, free=lambda: free)
    upkeep.tend()
    free, before = 10**8, store.amounts()["raw"]["press"]
    assert before.blocks == 40
    assert upkeep.tend() <= 60
    size = before.bytes
    for _ in range(3):
        fill(store, 10)
        upkeep.tend()
        assert store.amounts()["raw"]["press"].bytes <= size
    free = 10**9
    fill(store, 10)
    upkeep.tend()
    assert store.amounts()["raw"]["press"].bytes > size


def test_freed_pages_go_back_to_the_file_system(store: Store, clock: Clock) -> None:
    def size() -> int:
        store.file.maintain(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        return store.file.path.stat().st_size

    for number in range(40):
        store.append_raw("press", noise(10_000, number), None)
    full = size()
    Upkeep(store, options(max_gb=500 * KB), [], now=clock).tend()
    assert full > 3_000_000
    assert size() < 500_000 + 256 * 4096 + 100_000  # what is kept, spare pages for the next blocks, the small tables


@pytest.mark.parametrize("sources", [1, 3])
def test_merging_is_not_noticed(store: Store, clock: Clock, sources: int) -> None:
    chance = random.Random(sources)
    values = [1.5, 7, True, None, "lot-7", 2**70]
    for number in range(WINDOW + 100):
        source = f"s{chance.randrange(sources)}"
        some = [
            Sample(chance.choice("abc"), chance.choice(values), Quality.GOOD, number * SECOND + i, number * SECOND + i)
            for i in range(chance.randrange(1, 5))
        ]
        store.append_raw(source, some, f"{source}:{number}")

    def all_blocks(borders: set[int] | None = None) -> list[tuple[int, str, list[Sample]]]:
        found: list[tuple[int, str, list[Sample]]] = []
        while page := store.raw_blocks(found[-1][0] if found else 0, 100, borders=borders):
            found += [(raw.id, raw.source, raw.samples().samples()) for raw in page]
        return found

    before, whole = all_blocks(), store.read_raw("s0")
    amounts, cursor = store.amounts()["raw"], store.cursor("s0")
    upkeep = Upkeep(store, options(), [], now=clock)
    upkeep.tend()
    assert upkeep.merges > WINDOW - 10 * sources
    after = store.amounts()["raw"]
    assert after["s0"].bytes < amounts["s0"].bytes / 2
    assert after["s0"].entries == amounts["s0"].entries
    assert all_blocks() == before
    assert store.read_raw("s0") == whole
    assert store.cursor("s0") == cursor
    assert [raw.id for raw in store.raw_blocks(500, 3)] == [501, 502, 503]
    joined = all_blocks({333})
    assert [sample for *_, samples in joined for sample in samples] == [s for *_, samples in before for s in samples]
    if sources == 1:
        assert len(joined) < 110
        assert 333 in [number for number, *_ in joined]
    upkeep.tend()
    assert all_blocks() == before


async def test_upkeep_runs_when_enough_was_written(store: Store, clock: Clock) -> None:
    upkeep = Upkeep(store, options(max_gb=20 * KB), [], now=clock)
    running = asyncio.create_task(upkeep.run())
    shrunk = asyncio.Event()
    loop = asyncio.get_running_loop()
    original = store.raw_layer.drop

    def drop(*arguments: Any) -> Any:
        done = original(*arguments)
        if done.dropped_blocks:
            loop.call_soon_threadsafe(shrunk.set)
        return done

    store.raw_layer.drop = drop  # type: ignore[method-assign]
    try:
        await asyncio.to_thread(fill, store, 250)
        await asyncio.wait_for(shrunk.wait(), 10)
    finally:
        running.cancel()
        await asyncio.wait([running])


def test_rows_of_a_recipe_that_cannot_be_made_again_are_set_aside_and_found_again(store: Store, clock: Clock) -> None:
    fill(store, 10)
    store.declare("m1", RECIPE)
    store.append_all_features({"m1": block(0, 5)}, 5)
    store.append_all_features({"m1": block(5, 5)}, 10)
    store.save_progress({"m1": Progress(10, "state")})
    Upkeep(store, options(max_gb=4 * KB), ["m1"], now=clock).tend()
    first = store.raw_blocks(0)[0].id
    assert 5 < first < 10
    other = Recipe("two", ("a", "b"), Labelling("field"))
    assert (store.outlook("m1", "one").rows, store.outlook("m1", "two").lost) == (0, 5)
    with structlog.testing.capture_logs() as logged:
        assert store.declare("m1", other) == Progress()
    assert logged[0]["cannot_be_made_again"] == 5
    assert store.counts()["features"] == {"m1@one": 10}
    store.append_all_features({"m1": block(7, 3)}, 10)
    assert store.latest("m1", 9).time.tolist() == [7, 8, 9]
    assert store.declare("m1", RECIPE) == Progress(10, "state")
    assert store.latest("m1", 99).time.tolist() == list(range(10))
    store.forget_features("m1")
    assert store.latest("m1", 99).time.tolist() == list(range(5))
