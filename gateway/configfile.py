"""Reads the configuration: one TOML file and the pieces in ``conf.d/`` beside it, or everything that is wrong with them.

Lists (``[[source]]``, ``[[cluster]]``, ``[[end]]``) of all files are put one behind the other, files of ``conf.d`` in the order of their
names; a table may be set in one file only. Each file is brought to the present layout by itself (`common.layout`); variables of the
environment are put in when all are read (`common.environment`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from common.environment import substituted, variables
from common.files import write_atomic
from common.layout import KEY, NewerError, VersionError
from common.tomlfile import NEWER, VARIABLES, MalformedError, parse
from common.validation import Location, findings
from connectors import registry
from connectors.contract import SourceConfig
from connectors.errors import ConnectorConfigError
from gateway.checks import Problem, problems, suggestion
from gateway.config import Config
from gateway.config.layout import LAYOUT
from gateway.errors import ConfigError


def load(path: Path) -> Config:
    """The configuration in this file and its ``conf.d``. Raises ConfigError with every problem, each with file and line."""
    document = _Document()
    for file in files_of(path):
        document.add(file)
    document.refuse("FF-CONFIG-002")
    try:
        known = variables(path.parent)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "FF-CONFIG-006", f"the variables beside {path} cannot be used: {error}", hint=VARIABLES
        ) from error
    document.substitute(known)
    document.refuse("FF-CONFIG-003")
    config = _validated(document, path.parent.absolute())
    for problem in problems(config):
        document.complain(problem)
    document.refuse("FF-CONFIG-003")
    return config


def files_of(path: Path) -> tuple[Path, ...]:
    """This file and its pieces, in the order in which they are read."""
    return (path, *sorted((path.parent / "conf.d").glob("*.toml")))


def write_sample(folder: Path, data_dir: Path | None = None) -> Path:
    """Write the sample configuration, with its data in ``data_dir``, into a folder that has none. Raises ConfigError."""
    file = folder / "gateway.toml"
    if file.exists():
        hint = "choose another folder, or edit that file"
        raise ConfigError("FF-CONFIG-004", f"{file} exists and is left as it is", hint=hint)
    (folder / "conf.d").mkdir(parents=True, exist_ok=True)
    sample = (files("gateway") / "sample.toml").read_text()
    if data_dir is not None:
        sample = sample.replace('data_dir = "data"', f"data_dir = {json.dumps(str(data_dir))}", 1)
    write_atomic(file, sample.encode())
    return file


@dataclass
class _Document:
    """All files as one, with the place each part came from, and what is wrong so far."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, tuple[Path, int]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    complaints: list[tuple[int, int, str]] = field(default_factory=list)
    """Number of the file, line, text."""
    version: int = 1
    """Of the main file, and of each piece that says none."""
    oldest: int = LAYOUT.version
    """Of all files in which something is at a place it has moved from."""

    def add(self, file: Path) -> None:
        self.files.append(file)
        try:
            data, lines = parse(file.read_bytes())
            since = LAYOUT.version_of(data, self.version)
        except OSError as error:
            hint = "`fedfab gateway init DIR` writes a configuration to start from"
            raise ConfigError("FF-CONFIG-001", f"{file} cannot be read: {error.strerror}", hint=hint) from error
        except MalformedError as error:
            self._note(file, error.line, error.what)
            return
        except NewerError as error:
            raise ConfigError("FF-CONFIG-005", f"{file}:{lines[KEY,]}: {error}", hint=NEWER) from error
        except VersionError as error:
            self._note(file, lines[KEY,], str(error))
            return
        data.pop(KEY, None)
        if file == self.files[0]:
            self.version = since
        if LAYOUT.migrate(data, lines, since):
            self.oldest = min(self.oldest, since)
        self.places.setdefault((), (file, 1))
        moved = {key: len(self.data.get(key, ())) for key, value in data.items() if isinstance(value, list)}
        for path, line in lines.items():
            shifted = len(path) > 1 and path[0] in moved
            place = (path[0], moved[str(path[0])] + int(path[1]), *path[2:]) if shifted else path
            self.places.setdefault(place, (file, line))
        for key, value in data.items():
            self._merge(file, lines[key,], key, value)

    def _merge(self, file: Path, line: int, key: str, value: Any) -> None:
        if key not in self.data:
            self.data[key] = value
        elif isinstance(value, list) and isinstance(self.data[key], list):
            self.data[key] = [*self.data[key], *value]
        else:
            first, there = self.places[key,]
            self._note(file, line, f"[{key}] was set before, at {first}:{there}; give it once")

    def substitute(self, environment: Mapping[str, str]) -> None:
        """Put the variables of the environment into the texts."""
        self.data, unset = substituted({**self.data, KEY: self.oldest}, environment)
        for where, what in unset:
            self.complain(Problem(where, f'"{where[-1]}": {what}'))

    def complain(self, problem: Problem) -> None:
        path: Location = ()
        for part in problem.where:  # parts that only pydantic knows (members of a union) and missing keys have no place
            if (*path, part) in self.places:
                path = (*path, part)
        file, line = self.places[path]
        where = self._name(problem.where)
        self._note(file, line, f"{where + ': ' if where else ''}{problem.what}")

    def _name(self, where: Location) -> str:
        """``source "press-1": tag "speed"`` or ``[gateway]``: the elements a person would look for."""
        value: Any = self.data
        names = []
        for i, part in enumerate(where):
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(part, int) and isinstance(value, Mapping):
                name = value.get("name")
                names.append(f'{where[i - 1]} "{name}"' if name is not None else f"{where[i - 1]} number {part + 1}")
            elif isinstance(value, Mapping):
                names.append(str(part) if i else f"[{part}]")
        return ": ".join(names)

    def refuse(self, code: str) -> None:
        if self.complaints:
            texts = [f"{self.files[number]}:{line}: {text}" for number, line, text in sorted(self.complaints)]
            hint = "the options are explained by `fedfab gateway config docs`"
            raise ConfigError(code, "\n".join(["the configuration cannot be used", *texts]), hint=hint)

    def _note(self, file: Path, line: int, text: str) -> None:
        self.complaints.append((self.files.index(file), line, text))


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(document: _Document, folder: Path) -> Config:
    """Sources are checked one by one, each by the model of its own type, then all the rest. Raises ConfigError."""
    sources: list[SourceConfig] = []
    raw = document.data.get("source", [])
    for i, section in enumerate(raw if isinstance(raw, list) else []):
        model = _source_model(document, i, section)
        if model is not None:
            sources += _parsed(document, model, section, ("source", i), folder)
    data = {**document.data, "source": sources if isinstance(raw, list) else raw}
    configs = _parsed(document, Config, data, (), folder)
    document.refuse("FF-CONFIG-003")
    return configs[0]


def _source_model(document: _Document, i: int, section: Any) -> type[SourceConfig] | None:
    kind = section.get("type") if isinstance(section, dict) else None
    known = ", ".join(registry.types())
    if not isinstance(kind, str):
        document.complain(Problem(("source", i), f'"type" is missing: expected one of {known}'))
        return None
    try:
        return registry.get(kind).config
    except ConnectorConfigError:
        what = f'"type": expected one of {known}, got "{kind}"{suggestion(kind, registry.types())}'
        document.complain(Problem(("source", i, "type"), what))
        return None


def _parsed(document: _Document, model: type[_Model], data: Any, where: Location, folder: Path) -> list[_Model]:
    """The one model, or none and its complaints."""
    try:
        return [model.model_validate(data, context={"folder": folder})]
    except ValidationError as error:
        for finding in findings(model, error):
            document.complain(Problem((*where, *finding.where), str(finding)))
        return []
