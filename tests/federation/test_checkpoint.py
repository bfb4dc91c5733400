"""Checkpoints: the newest one is whole at any moment, and the ones before it are overwritten."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from federation import checkpoint as module
from federation.checkpoint import Checkpoint

PARAMS = {"trunk/weight": np.arange(6, dtype=np.float32)}


async def test_only_the_newest_is_left(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    await checkpoint.save({"round": 1}, PARAMS)
    with (tmp_path / "checkpoint").open("rb") as first:
        await checkpoint.save({"round": 2}, PARAMS)
        assert not any(first.read())
    assert os.listdir(tmp_path) == ["checkpoint"]
    stored = await checkpoint.load()
    assert stored is not None
    assert stored[0] == {"round": 2}
    np.testing.assert_array_equal(stored[1]["trunk/weight"], PARAMS["trunk/weight"])


async def test_a_crash_before_the_new_one_stands_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path)
    await checkpoint.save({"round": 1}, PARAMS)

    def crash(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", crash)
        with pytest.raises(OSError, match="No space left"):
            await checkpoint.save({"round": 2}, PARAMS)
    for round_ in (1, 2):
        stored = await Checkpoint(tmp_path).load()
        assert stored is not None
        assert stored[0] == {"round": round_}
        await checkpoint.save({"round": round_ + 1}, PARAMS)


async def test_nothing_is_left_when_it_is_cleared(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    await checkpoint.save({"round": 1}, PARAMS)
    with (tmp_path / "checkpoint").open("rb") as held:
        await checkpoint.clear()
        assert not any(held.read())
    assert os.listdir(tmp_path) == []
    await checkpoint.clear()
    assert await checkpoint.load() is None
