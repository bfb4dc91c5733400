"""A small configuration and samples for it, for tests of the data side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from connectors.contract import Quality, Sample, SourceConfig, TagConfig, Value
from gateway.config import Config

SECOND = 1_000_000_000


class ScriptedTag(TagConfig):
    """A tag of a source that a test plays."""


class ScriptedSource(SourceConfig):
    """A source that a test plays."""

    type: str = "scripted"
    tag: tuple[ScriptedTag, ...]


def source(name: str, units: Mapping[str, str]) -> ScriptedSource:
    """A source with these tags."""
    return ScriptedSource(name=name, tag=tuple(ScriptedTag(name=tag, unit=unit) for tag, unit in units.items()))


def config(folder: Path, *, ends: Sequence[str] = ("m1",), **cluster: object) -> Config:
    """One cluster with the fields vibration (mm/s), temperature (degC), cycle and run; each end reads a source of its own name."""
    fields = [
        {"name": "vibration", "unit": "mm/s"},
        {"name": "temperature", "unit": "degC"},
        {"name": "cycle", "role": "aux"},
        {"name": "run", "role": "aux"},
    ]
    settings = {
        "name": "machines",
        "rows": {"on_change": "cycle", "wait_s": 0},
        "group": "run",
        "label": {"remaining": "cycle", "cap": 125, "unit": "cycles"},
        "field": fields,
        **cluster,
    }
    names = [each["name"] for each in settings["field"]]  # type: ignore[attr-defined]
    units = {"vibration": "mm/s", "temperature": "degF", "cycle": "", "run": "", "quality": ""}
    return Config.model_validate(
        {
            "gateway": {"name": "gateway-a", "data_dir": folder},
            "source": [source(end, units) for end in ends],
            "cluster": [settings],
            "end": [{"name": end, "cluster": "machines", "tags": {n: f"{end}/{n}" for n in names}} for end in ends],
        }
    )


def snapshot(second: float, quality: Quality = Quality.GOOD, **values: Value) -> list[Sample]:
    """One sample for each tag, all of one source time."""
    time = round(second * SECOND)
    return [Sample(tag, value, quality, time, time) for tag, value in values.items()]
