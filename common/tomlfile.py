"""Reads one TOML file into a pydantic model, or says everything that is wrong with it, each with its line.

An older layout is brought to the present one in memory; then variables of the environment are put into the texts (`common.environment`).
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from common import tomlmap
from common.environment import substituted, variables
from common.errors import FedfabError
from common.layout import KEY, Layout, NewerError, VersionError
from common.validation import findings

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

NEWER = "install the fedfab that wrote it again, or put back the file from before its migration: it lies beside it, as *.bak"
VARIABLES = "a line is NAME=value, the file is text and readable for the service's user"

Model = TypeVar("Model", bound=BaseModel)


class FileError(FedfabError):
    """A file that a person wrote cannot be used; nothing was changed."""


class MalformedError(ValueError):
    """Not TOML at all: the line, and what is wrong there."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line
        self.what = what


class Document(NamedTuple):
    """What a file says, and the line on which each path of keys stands."""

    data: dict[str, Any]
    lines: dict[tomlmap.Path, int]


def parse(content: bytes) -> Document:
    """The content of a TOML file. Raises MalformedError."""
    try:
        text = content.decode()
        return Document(tomllib.loads(text), tomlmap.lines(text))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedError(line, f"expected UTF-8 text, got the byte {content[error.start]:#x}") from error
    except tomllib.TOMLDecodeError as error:
        match = _POSITION.search(str(error))
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        raise MalformedError(line, f"not TOML: {_POSITION.sub('', str(error))}") from error


def load(path: Path, model: type[Model], *, hint: str, layout: Layout | None = None) -> Model:
    """The file as ``model``; relative paths in it are relative to its folder.

    With a ``layout`` the model has the option ``version``: the file's where something moved since then, else the present one.

    Raises FileError FF-FILE-001 when it cannot be read, -002 when it is not TOML, -003 with every option that does not fit,
    -004 when a later version wrote it.
    """
    try:
        document = parse(path.read_bytes())
    except OSError as error:
        raise FileError("FF-FILE-001", f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except MalformedError as error:
        raise FileError("FF-FILE-002", f"{path}:{error.line}: {error.what}", hint=hint) from error
    data = _present(path, document, layout, hint=hint) if layout else document.data
    try:
        known = variables(path.parent)
    except (OSError, ValueError) as error:
        raise FileError(
            "FF-FILE-006", f"the variables beside {path} cannot be used: {error}", hint=VARIABLES
        ) from error
    data, unset = substituted(data, known)
    found = [(problem.where, f'"{problem.where[-1]}": {problem.what}') for problem in unset]
    try:
        if not found:
            return model.model_validate(data, context={"folder": path.parent.absolute()})
    except ValidationError as error:
        found = [(finding.where, str(finding)) for finding in findings(model, error)]
    told = sorted((_line(document.lines, where), _section(where) + what) for where, what in found)
    listed = "\n".join(f"{path}:{line}: {what}" for line, what in told)
    raise FileError("FF-FILE-003", f"the file cannot be used\n{listed}", hint=hint)


def _present(path: Path, document: Document, layout: Layout, *, hint: str) -> dict[str, Any]:
    """The document in the present layout, with its version. Raises FileError."""
    data, lines = document
    try:
        since = layout.version_of(data)
    except NewerError as error:
        raise FileError("FF-FILE-004", f"{path}:{lines[KEY,]}: {error}", hint=NEWER) from error
    except VersionError as error:
        raise FileError("FF-FILE-003", f"the file cannot be used\n{path}:{lines[KEY,]}: {error}", hint=hint) from error
    data[KEY] = since if layout.migrate(data, lines, since) else layout.version
    return data


def _line(lines: dict[tomlmap.Path, int], where: tomlmap.Path) -> int:
    """Line of the longest part of the path that stands in the file: a missing option is reported at its table."""
    return next(lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in lines)


def _section(where: tomlmap.Path) -> str:
    tables = [str(part + 1) if isinstance(part, int) else part for part in where[:-1]]
    return f"[{' '.join(tables)}]: " if tables else ""
