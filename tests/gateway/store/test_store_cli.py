"""`fedfab gateway store …` on a store that a gateway has open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.gateway import app
from gateway.configfile import write_sample
from gateway.store import Store
from tests.gateway.store.plant import RECIPE, batch, result, rows


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = write_sample(tmp_path / "gateway")
    with Store.open(file.parent / "data" / "store.db") as store:
        store.declare("spindle-1", RECIPE)
        for number in range(1, 40):
            store.append_raw("press", batch(number), str(number))
            store.append_all_features({"spindle-1": rows(number)}, number)
        store.append_results([result(7)])
    return file


def run(config: Path, *arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, ["store", *arguments, "-c", str(config)])


@pytest.mark.clause("9.4.1.1d")
def test_what_a_running_gateway_keeps_is_shown_asked_exported_and_backed_up(config: Path, tmp_path: Path) -> None:
    with Store.open(config.parent / "data" / "store.db"):
        shown = run(config, "info")
        assert shown.exit_code == 0, shown.output
        assert "press" in shown.output
        held = json.loads(run(config, "info", "--json").stdout)["held"]
        assert {(row["layer"], row["of"], row["entries"]) for row in held} == {
            ("raw", "press", 39 * 4),
            ("features", "spindle-1", 39),
            ("results", "wear", 1),
        }
        assert run(config, "check").exit_code == 0
        found = run(config, "sql", "SELECT count(*) AS n FROM raw WHERE value > 20", "--until", "1970-01-01T00:00:30")
        assert "39" in found.stdout  # 9 batches of 4, and three values of the batch before
        assert run(config, "export", "--layer", "features", str(tmp_path / "out")).exit_code == 0
        assert (tmp_path / "out" / "features_spindle-1.parquet").exists()
        assert run(config, "backup", str(tmp_path / "copy.db")).exit_code == 0
        refused = run(config, "restore", str(tmp_path / "copy.db"))
        assert "FF-STORE-001" in str(refused.exception)
    assert run(config, "restore", str(tmp_path / "copy.db")).exit_code == 0


def test_check_tells_of_damage_and_sets_it_aside_where_nothing_runs(config: Path, tmp_path: Path) -> None:
    path = config.parent / "data" / "store.db"
    content = bytearray(path.read_bytes())
    at = content.index(b'"tags":["x"]', 4096 * 2)
    content[at + 9] ^= 1
    path.write_bytes(content)
    found = run(config, "check")
    assert found.exit_code == 1
    assert "checksum" in found.output
    assert run(config, "check").exit_code == 0
    assert "checksum" in run(config, "info").output


@pytest.mark.parametrize("when", ["yesterday", "2026-13-01"])
def test_a_time_that_is_none_is_refused(config: Path, when: str) -> None:
    assert "is no time" in run(config, "sql", "SELECT 1", "--since", when).output
    shutil.rmtree(config.parent)
