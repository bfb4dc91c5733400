"""Damaged blocks and damaged files: what is sound is read on, what is not is told, and the store always opens."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from gateway.errors import StoreError
from gateway.store import Progress, Store
from gateway.store.check import check
from tests.gateway.store import MEMORY
from tests.gateway.store.plant import RECIPE, batch, result, rows
from tests.gateway.test_store import block

BATCHES = 300
EXPECTED = {
    f"press-{source}": [sample for number in range(1, BATCHES + 1) if number % 2 == source for sample in batch(number)]
    for source in range(2)
}

PAGES = 60  # about what the file has
FLIPS = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, PAGES * 4096),
            st.builds(
                lambda page, at: page * 4096 + at, st.integers(0, PAGES), st.integers(0, 120)
            ),  # where b-trees begin
        ),
        st.integers(1, 255),
    ),
    min_size=1,
    max_size=3,
)
"""Where bytes of a file are changed, and which bits of them."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two sources, one end and results, closed in good order."""
    path = tmp_path_factory.mktemp("whole") / "store.db"
    with Store.open(path) as store:
        store.declare("m1", RECIPE)
        for number in range(1, BATCHES + 1):
            store.append_raw(f"press-{number % 2}", batch(number), str(number))
            store.append_all_features({"m1": rows(number)}, number)
        store.append_results([result(number) for number in range(BATCHES)])
        store.save_progress({"m1": Progress(BATCHES, "state")})
    return path


def copied(whole: Path, folder: str) -> Path:
    return Path(shutil.copy(whole, folder))


@pytest.mark.parametrize(("layer", "table"), [("raw", "raw"), ("features", "feature")])
def test_a_damaged_block_is_set_aside_once_and_the_rest_goes_on(tmp_path: Path, layer: str, table: str) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        store.declare("m1", RECIPE)
        for number in range(1, 4):
            store.append_raw("press", batch(number), str(number))
            store.append_features("m1", block(number * 10, 4))
    with sqlite3.connect(path) as database:
        (data,) = database.execute(f"SELECT data FROM {table} WHERE id = 2").fetchone()
        database.execute(f"UPDATE {table} SET data = ? WHERE id = 2", (data[:-1] + bytes([data[-1] ^ 1]),))
    with Store.open(path, read_only=True) as reader:  # it cannot move anything, and reads round it
        assert len(reader.features("m1").time) + len(reader.read_raw("press")) == 12 + 12 - 4
    with Store.open(path) as store:
        for _ in range(2):
            assert [raw.id for raw in store.raw_blocks(0)] == ([1, 3] if layer == "raw" else [1, 2, 3])
            assert len(store.features("m1").time) == (12 if layer == "raw" else 8)
        (damage,) = store.damage()
        assert (damage.layer, damage.block, damage.entries) == (layer, 2, 4)
        assert "checksum" in damage.reason
        (held,) = store.amounts()[layer].values()  # type: ignore[index]
        assert (held.entries, held.damaged_blocks, held.damaged_entries) == (8, 1, 4)
        assert check(store).sound


def told(store: Store) -> bool:
    """Whether the store says that something was lost."""
    damaged = any(
        held.damaged_blocks or held.damaged_entries for names in store.amounts().values() for held in names.values()
    )
    return damaged or store.file.renewed > 0 or bool(store.damage())


@settings(
    max_examples=int(os.environ.get("FEDFAB_DAMAGE_EXAMPLES", "60")),
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
)  # shrinking would take minutes and show no more
@example(flips=[(18, 192)])
@example(flips=[(60, 1)])
@given(flips=FLIPS)
def test_whatever_byte_is_damaged_the_store_opens_and_loses_nothing_in_silence(
    whole: Path, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(whole.read_bytes())
    for at, bits in flips:
        content[at % len(content)] ^= bits
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "store.db"
        path.write_bytes(content)
        with Store.open(path) as store:
            report = check(store)
            for source, expected in EXPECTED.items():
                kept = store.read_raw(source)
                found = set(kept)
                assert [sample for sample in expected if sample in found] == kept
                assert kept == expected or told(store), report
            times = store.latest("m1", BATCHES).time.tolist()
            assert times == list(range(1, BATCHES + 1)) or told(store), report
            results = store.results()
            assert all(each == result(each.time) for each in results)
            assert len(results) == BATCHES or told(store), report
            assert check(store).sound
            number = store.append_raw("press-9", batch(1), "1")
            assert number > BATCHES
            assert store.read_raw("press-9") == batch(1)


def test_a_torn_file_is_set_aside_and_its_blocks_are_carried_over(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, str(tmp_path))
    content = path.read_bytes()
    path.write_bytes(bytes(4096) + content[4096:])  # the first page is gone
    with pytest.raises(StoreError, match="FF-STORE-008"):
        Store.open(path, read_only=True)
    with Store.open(path) as store:
        assert len(store.read_raw("press-0")) == sum(len(batch(number)) for number in range(2, BATCHES + 1, 2))
        assert store.cursor("press-1") == str(BATCHES - 1)
        assert store.declare("m1", RECIPE) == Progress(BATCHES, "state")
        assert store.latest("m1", BATCHES).time.tolist() == list(range(1, BATCHES + 1))
        assert store.last_raw() > BATCHES
    (aside,) = tmp_path.glob("store.db.damaged-*")
    assert aside.read_bytes()[4096:] == content[4096:]


def test_a_reader_goes_over_to_the_new_file(whole: Path, tmp_path: Path) -> None:
    path = copied(whole, str(tmp_path))
    with Store.open(path) as store, Store.open(path, read_only=True) as reader:
        before = reader.counts()
        store.file.renew("a test")
        assert reader.counts() == before
        store.append_raw("new", batch(1), None)
        assert reader.counts()["raw"]["new"] == len(batch(1))


def test_what_is_only_in_the_log_is_carried_over(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store.open(path) as store:
        for number in range(1, 30):
            store.append_raw("press", batch(number), str(number))
        for suffix in ("", "-wal"):
            shutil.copy(path.with_name(path.name + suffix), tmp_path / f"cut.db{suffix}")
    cut = tmp_path / "cut.db"
    cut.write_bytes(b"\xff" * 100 + cut.read_bytes()[100:])
    with Store.open(cut) as store:
        assert store.read_raw("press") == [sample for number in range(1, 30) for sample in batch(number)]


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    shutil.copy(Path(__file__).with_name("schema1.db"), path)
    with Store.open(path) as store:
        assert store.cursor("press") == "3"
        assert [raw.id for raw in store.raw_blocks(0)] == [1, 2, 3]
        assert len(store.latest("m1", 9).time) == 5
        assert store.results()[0].outputs == {"prediction": [1.5]}
        assert store.counts() == {"raw": {"press": 3}, "features": {"m1": 5}, "results": {"wear": 1}}
        assert check(store).sound
    assert not list(tmp_path.glob("*.damaged*"))
