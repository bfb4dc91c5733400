"""Reads a configuration or a task from TOML, or says everything that is wrong with it, each with its line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from common import tomlmap
from common.files import write_atomic
from common.validation import findings
from coordinator.config import Config
from coordinator.errors import FileError
from models.spec import TaskSpec

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: Path) -> Config:
    """The coordinator's configuration. Raises FileError."""
    return load(path, Config, hint="`fedfab coordinator init DIR` writes a file that explains every option")


def load_task(path: Path) -> TaskSpec:
    """A task. Raises FileError."""
    return load(path, TaskSpec, hint="config/task.toml explains every option")


def write_sample(folder: Path) -> Path:
    """Write the sample configuration as ``coordinator.toml``. Raises FileError FF-COORD-008 where there is one already."""
    target = folder / "coordinator.toml"
    if target.exists():
        raise FileError("FF-COORD-008", f"{target} exists", hint="name another folder, or remove the file first")
    write_atomic(target, Path(__file__).with_name("sample.toml").read_bytes())
    return target


def load(path: Path, model: type[Model], *, hint: str) -> Model:
    """The file as ``model``.

    Raises FileError FF-COORD-005 when it cannot be read, -006 when it is not TOML, -007 with every option that does not fit.
    """
    try:
        text = path.read_bytes().decode()
        data = tomllib.loads(text)
    except OSError as error:
        raise FileError("FF-COORD-005", f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FileError(
            "FF-COORD-006", f"{path}:{line}: expected UTF-8, got byte {error.object[error.start]:#x}"
        ) from error
    except tomllib.TOMLDecodeError as error:
        match = _POSITION.search(str(error))
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        raise FileError(
            "FF-COORD-006", f"{path}:{line}: not TOML: {_POSITION.sub('', str(error))}", hint=hint
        ) from error
    try:
        return model.model_validate(data, context={"folder": path.parent.absolute()})
    except ValidationError as error:
        lines = tomlmap.lines(text)
        found = sorted(
            (_line(lines, finding.where), _section(finding.where) + str(finding)) for finding in findings(model, error)
        )
        listed = "\n".join(f"{path}:{line}: {what}" for line, what in found)
        raise FileError("FF-COORD-007", f"the file cannot be used\n{listed}", hint=hint) from error


def _line(lines: dict[tomlmap.Path, int], where: tomlmap.Path) -> int:
    """Line of the longest part of the path that stands in the file: a missing option is reported at its table."""
    return next(lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in lines)


def _section(where: tomlmap.Path) -> str:
    tables = [str(part + 1) if isinstance(part, int) else part for part in where[:-1]]
    return f"[{' '.join(tables)}]: " if tables else ""
