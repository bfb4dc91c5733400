"""`fedfab gateway init, check, rebuild, config` as a person types them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from cli.gateway import app
from gateway.configfile import load
from gateway.errors import ConfigError
from gateway.preparation import Preparation
from gateway.probe import probe
from gateway.store import Store
from tests.gateway.plants import config, snapshot
from tests.gateway.test_preparation import life
from tests.gateway.test_runtime import load_sql


def said(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def test_init_writes_what_check_accepts(tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    assert "gateway.toml" in said("init", str(folder))
    output = said("check", "-c", str(folder / "gateway.toml"))
    digest = load(folder / "gateway.toml").schema_of("spindles").digest()
    for word in ("gateway-a", "press-line", "vibration (mm/s)", "remaining (cycles)", "spindle-1", digest):
        assert word in output


def test_check_raises_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text("[gatway]\n")
    with pytest.raises(ConfigError, match=r'unknown option "gatway" \(did you mean "gateway"\?\)'):
        CliRunner().invoke(app, ["check", "-c", str(tmp_path / "gateway.toml")], catch_exceptions=False)


def test_probe_shows_a_reading_of_every_tag_and_which_source_is_dead(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/plant.db"
    engine = sa.create_engine(url)
    with engine.begin() as plant:
        plant.execute(
            sa.text("CREATE TABLE log (id INTEGER PRIMARY KEY, at REAL, vibration REAL, cycle INTEGER, run INTEGER)")
        )
        plant.execute(sa.text("INSERT INTO log (at, vibration, cycle, run) VALUES (86400, 2.5, 7, 1)"))
    engine.dispose()
    made = load_sql(tmp_path, url)
    file = tmp_path / "gateway.toml"
    output = said("check", "--probe", "-c", str(file))
    for word in ("vibration", "2.5", "good", "1970-01-02 00:00:00.000"):
        assert word in output
    dead = '[[source]]\nname = "dead"\ntype = "modbus"\nhost = "127.0.0.1"\nport = 1\n[[source.tag]]\nname = "x"\naddress = 0\n'
    file.write_text(file.read_text() + dead)
    output = said("check", "--probe", "-c", str(file), "--timeout-s", "5", status=1)
    assert "2.5" in output
    assert "dead does not answer: FF-MODBUS-" in output
    readings = asyncio.run(probe(made.sources, 5))
    assert [sample.value for sample in readings[0].samples] == [2.5, 7, 1]


def test_rebuild_tells_what_cleaning_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(tmp_path)
    monkeypatch.setattr("gateway.configfile.load", lambda _: made)
    with Store.open(made.gateway.store) as store:
        for samples in [*life(2), snapshot(99, vibration=None)]:
            store.append_raw("m1", samples, None)
        preparation = Preparation(made, store)
        while preparation.advance():
            pass
        store.forget_features("m1")
    output = said("rebuild", "-c", "gateway.toml")
    assert "1 bad" in output
    assert "m1: 10 rows" in output


def test_the_configuration_is_explained() -> None:
    assert "`max_rate_per_s`" in said("config", "docs")
    assert "`endpoint`" not in said("config", "docs", "--no-sources")
    assert json.loads(said("config", "schema"))["required"] == ["gateway"]
