"""The registry, the contract's side of every connector, and what stands beside each: README, sample, documentation."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from connectors import registry
from connectors.contract import Connector
from connectors.errors import ConnectorConfigError

ROOM = Path(registry.__file__).parent


def test_an_unknown_type_names_the_nearest() -> None:
    with pytest.raises(ConnectorConfigError, match=r'(?s)FF-SOURCE-002.*did you mean "modbus"'):
        registry.get("modbuss")


def test_reading_a_configuration_imports_no_protocol_library() -> None:
    heavy = ["asyncua", "pymodbus", "sqlalchemy", "psycopg", "pymysql"]
    script = f"import sys, connectors.registry; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", registry.types())
def test_every_option_has_a_description_and_stands_in_the_readme(kind: str) -> None:
    readme = (ROOM / kind / "README.md").read_text()
    model = registry.get(kind).config
    tag = model.model_json_schema()["properties"]["tag"]["items"]["$ref"].rsplit("/", 1)[1]
    options = {**model.model_json_schema()["properties"], **model.model_json_schema()["$defs"][tag]["properties"]}
    for name, option in options.items():
        assert option.get("description") or "$ref" in option, name
        assert f"| `{name}` |" in readme, f"{name} is not in the table of {kind}/README.md"


@pytest.mark.parametrize("kind", registry.types())
def test_the_sample_is_valid_and_its_connector_can_be_made(kind: str) -> None:
    (section,) = tomllib.loads((ROOM / kind / "sample.toml").read_text())["source"]
    model = registry.get(kind).config.model_validate(section, context={"folder": Path("/etc/fedfab")})
    assert model.tag_names() == tuple(tag["name"] for tag in section["tag"])
    assert set(model.tag_units()) == set(model.tag_names())
    made: Connector = registry.get(kind).create(model)
    assert made is not None


@pytest.mark.parametrize("kind", registry.types())
async def test_stop_before_start_and_twice(kind: str) -> None:
    (section,) = tomllib.loads((ROOM / kind / "sample.toml").read_text())["source"]
    connector = registry.get(kind).create(registry.get(kind).config.model_validate(section))
    await connector.stop()
    await connector.stop()
