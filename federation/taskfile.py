"""A task as a file: what `fedfab task submit` sends and `fedfab gateway train` learns."""

from __future__ import annotations

from pathlib import Path

from common import tomlfile
from models.spec import TaskSpec


def load_task(path: Path) -> TaskSpec:
    """The task, every option checked. Raises `common.tomlfile.FileError`."""
    return tomlfile.load(path, TaskSpec, hint="config/task.toml explains every option")
