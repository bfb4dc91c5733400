"""The coordinator's configuration as a file."""

from __future__ import annotations

from pathlib import Path

from common import tomlfile
from common.files import write_atomic
from coordinator.config import Config
from coordinator.errors import CoordinatorError
from coordinator.layout import LAYOUT


def load_config(path: Path) -> Config:
    """The configuration, every option checked. Raises `common.tomlfile.FileError`."""
    return tomlfile.load(
        path, Config, hint="`fedfab coordinator init DIR` writes a file that explains every option", layout=LAYOUT
    )


def write_sample(folder: Path) -> Path:
    """Write the sample configuration as ``coordinator.toml``. Raises CoordinatorError FF-COORD-008 where there is one already."""
    target = folder / "coordinator.toml"
    if target.exists():
        raise CoordinatorError("FF-COORD-008", f"{target} exists", hint="name another folder, or remove the file first")
    write_atomic(target, Path(__file__).with_name("sample.toml").read_bytes())
    return target
