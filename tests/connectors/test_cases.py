"""Golden cases: a folder each, `<type>/cases/<name>/`, with a configuration and what comes of it.

config.toml and error.txt    the configuration is refused, and the message contains every line of error.txt
config.toml, INPUT and expected.json    what the connector makes of INPUT without a network:
    modbus: device.json, the memory of a device by table and address
    opcua: data.json, data values as a server sends them
    sql: data.sql, statements that fill an SQLite file
"""

from __future__ import annotations

import json
import sqlite3
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from pydantic import ValidationError

from connectors import registry
from connectors.contract import Quality, Sample, SourceConfig
from connectors.modbus.config import ModbusConfig
from connectors.modbus.decode import decoder
from connectors.modbus.plan import plan
from connectors.opcua.values import sample

NOW = 1_800_000_000_000_000_000
FOLDER = Path(__file__).parent
CASES = sorted(FOLDER.glob("*/cases/*"))
REFUSED = [case for case in CASES if (case / "error.txt").exists()]
READ = [case for case in CASES if (case / "expected.json").exists()]


def name_of(case: Path) -> str:
    return f"{case.parent.parent.name}-{case.name}"


def load(case: Path) -> SourceConfig:
    (section,) = tomllib.loads((case / "config.toml").read_text())["source"]
    return registry.get(section["type"]).config.model_validate(section, context={"folder": case})


def test_every_folder_is_a_case() -> None:
    assert len(REFUSED) + len(READ) == len(CASES) > 0
    assert {case.parent.parent.name for case in CASES} == set(registry.types())


@pytest.mark.parametrize("case", REFUSED, ids=name_of)
def test_refused(case: Path) -> None:
    with pytest.raises(ValidationError) as refused:
        load(case)
    for line in (case / "error.txt").read_text().splitlines():
        assert line in str(refused.value)


@pytest.mark.parametrize("case", READ, ids=name_of)
async def test_read(case: Path, tmp_path: Path) -> None:
    expected = json.loads((case / "expected.json").read_text())
    match load(case):
        case ModbusConfig() as config:
            found = modbus(config, json.loads((case / "device.json").read_text()))
        case config if config.type == "opcua":
            found = opcua(config, json.loads((case / "data.json").read_text()))
        case config:
            found = await sql(config, (case / "data.sql").read_text(), tmp_path)
    assert found == expected


def modbus(config: ModbusConfig, device: dict[str, dict[str, int]]) -> object:
    blocks = plan(config)
    values: dict[str, object] = {}
    for block in blocks:
        memory = [device[block.table].get(str(block.address + place), 0) for place in range(block.count)]
        found = decoder(block).values(memory)
        values.update(zip((slot.tag.name for slot in block.slots), found, strict=True))
    return {
        "reads": [[block.unit_id, block.table, block.address, block.count] for block in blocks],
        "values": {tag: values[tag] for tag in config.tag_names()},
    }


def opcua(config: SourceConfig, data: list[dict[str, Any]]) -> object:
    samples = []
    for tag, item in zip(config.tag_names(), data, strict=True):
        value = ua.DataValue(
            ua.Variant(item.get("value"), ua.VariantType[item.get("type", "Null")]),
            StatusCode=ua.StatusCode(int(item.get("status", "0"), 16)),
            SourceTimestamp=moment(item.get("source_ms")),
            ServerTimestamp=moment(item.get("server_ms")),
        )
        samples.append(sample(tag, value, NOW))
    return plain(samples)


def moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


async def sql(config: SourceConfig, statements: str, folder: Path) -> object:
    file = folder / "plant.db"
    connection = sqlite3.connect(file)
    connection.executescript(statements)
    connection.close()
    reader = registry.get("sql").create(config.model_copy(update={"url": f"sqlite:///{file}"}))
    await reader.start(None)
    batch = await reader.read()
    await reader.stop()
    return {"cursor": batch.cursor, "samples": plain(batch.samples)}


def plain(samples: Any) -> list[list[object]]:
    """Samples as JSON; the time of the gateway itself is "now"."""
    return [
        [
            one.tag,
            one.value,
            Quality(one.quality).name,
            "now" if one.source_time == one.gateway_time else one.source_time,
        ]
        for one in samples
        if isinstance(one, Sample)
    ]
