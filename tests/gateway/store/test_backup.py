"""Backup while the store is written, and restore: nothing half done, nothing lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.errors import StoreError
from gateway.store import Store
from gateway.store.backup import back_up, restore
from tests.gateway.store.plant import RECIPE, batch, rows


def fill(store: Store, first: int, last: int) -> None:
    for number in range(first, last):
        store.append_raw("press", batch(number), str(number))
        store.append_all_features({"m1": rows(number)}, number)


def test_a_backup_under_way_is_one_state_of_the_store(tmp_path: Path) -> None:
    target, done = tmp_path / "copy.db", threading.Event()
    with Store.open(tmp_path / "store.db") as store:
        store.declare("m1", RECIPE)
        fill(store, 1, 300)

        def busy() -> None:
            number = 300
            while not done.is_set():
                fill(store, number, number + 1)
                number += 1

        writer = threading.Thread(target=busy)
        writer.start()
        seen: list[tuple[int, int]] = []
        try:
            made = back_up(store.file.path, target, lambda done, total: seen.append((done, total)))
        finally:
            done.set()
            writer.join()
        assert made.report.sound
        assert seen[-1][0] == seen[-1][1]
        after = store.last_raw()
    assert sorted(each.name for each in tmp_path.glob("copy*")) == ["copy.db"]
    with Store.open(target, read_only=True) as copy:
        last = copy.last_raw()
        assert 299 <= last <= after
        assert copy.cursor("press") == str(last)
        assert copy.read_raw("press") == [sample for number in range(1, last + 1) for sample in batch(number)]
        assert copy.latest("m1", 10**6).time.tolist() == list(range(1, len(copy.latest("m1", 10**6).time) + 1))


def test_a_restored_store_goes_on_where_the_backup_was_made(tmp_path: Path) -> None:
    path, target = tmp_path / "store.db", tmp_path / "copy.db"
    with Store.open(path) as store:
        store.declare("m1", RECIPE)
        fill(store, 1, 20)
        back_up(path, target)
        with pytest.raises(StoreError, match="FF-STORE-010"):
            back_up(path, target)
        fill(store, 20, 30)
        with pytest.raises(StoreError, match="FF-STORE-001"):
            restore(target, path)
    kept = restore(target, path)
    with Store.open(path) as store:
        assert store.cursor("press") == "19"
        fill(store, 20, 25)
        assert store.read_raw("press") == [sample for number in range(1, 25) for sample in batch(number)]
    assert kept is not None
    with Store.open(kept, read_only=True) as old:
        assert old.cursor("press") == "29"


def test_a_damaged_backup_is_refused_and_the_store_stays(tmp_path: Path) -> None:
    path, target = tmp_path / "store.db", tmp_path / "copy.db"
    with Store.open(path) as store:
        store.declare("m1", RECIPE)
        fill(store, 1, 20)
    back_up(path, target)
    content = bytearray(target.read_bytes())
    at = content.index(batch(5)[0].tag.encode() + b'"]')
    content[at] ^= 1
    target.write_bytes(content)
    with pytest.raises(StoreError, match="FF-STORE-009"):
        restore(target, path)
    (tmp_path / "text.db").write_text("no backup at all " * 100)
    with pytest.raises(StoreError):
        restore(tmp_path / "text.db", path)
    with Store.open(path) as store:
        assert store.cursor("press") == "19"
