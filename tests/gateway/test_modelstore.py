"""Versions with evidence, promotion and roll-back, whole or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.modelstore import ModelStore
from tests.gateway.served import draft


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_versions_count_up_and_keep_their_evidence(models: ModelStore) -> None:
    first = models.add("wear-spindles", draft("a"), b"one")
    second = models.add("wear-spindles", draft("b", parent=1), b"two")
    assert (first.version, second.version) == (1, 2)
    assert models.names() == ["wear-spindles"]
    assert models.versions("wear-spindles") == [1, 2]
    assert models.evidence("wear-spindles", 2) == second
    assert second.parent == 1
    assert models.model("wear-spindles", 1) == b"one"
    assert models.in_use("wear-spindles") is None


def test_the_same_parameters_of_the_same_task_are_one_version(models: ModelStore) -> None:
    assert models.add("m", draft("a"), b"one") == models.add("m", draft("a"), b"one")
    assert models.add("m", draft("a", task_id="t2"), b"one").version == 2


@pytest.mark.clause("8.10.2")
def test_promote_and_roll_back(models: ModelStore) -> None:
    for name in "abc":
        models.add("m", draft(name), name.encode())
    for version in (1, 2, 3):
        models.promote("m", version, "test")
    stamp = models.stamp("m")
    assert models.roll_back("m", "worse on the night shift").version == 2
    assert models.stamp("m") != stamp
    assert models.roll_back("m", "still worse").version == 1
    with pytest.raises(GatewayError, match="FF-MODELSTORE-003"):
        models.roll_back("m", "once more")


def test_promoting_what_is_in_use_changes_nothing(models: ModelStore) -> None:
    models.add("m", draft("a"), b"a")
    models.promote("m", 1, "test")
    stamp = models.stamp("m")
    models.promote("m", 1, "again")
    assert models.stamp("m") == stamp


def test_unknown_names_and_versions_say_what_there_is(models: ModelStore) -> None:
    models.add("m", draft("a"), b"a")
    with pytest.raises(GatewayError, match=r"FF-MODELSTORE-001.*m has no version 7; it has 1"):
        models.promote("m", 7, "test")
    with pytest.raises(GatewayError, match="models here are \\['m'\\]"):
        models.evidence("n", 1)
    with pytest.raises(GatewayError, match="no name of a model"):
        models.in_use("../../etc")


def test_a_changed_file_is_not_served(models: ModelStore) -> None:
    models.add("m", draft("a"), b"a model")
    (models.folder / "m" / "1" / "model.onnx").write_bytes(b"another")
    with pytest.raises(GatewayError, match="FF-MODELSTORE-002"):
        models.model("m", 1)


def test_writers_at_once_get_versions_of_their_own(models: ModelStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: models.add("m", draft(str(i)), str(i).encode()).version, range(16)))
    assert sorted(made) == list(range(1, 17))
