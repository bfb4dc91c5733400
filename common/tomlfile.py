"""Reads one TOML file into a pydantic model, or says everything that is wrong with it, each with its line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from common import tomlmap
from common.errors import FedfabError
from common.validation import findings

_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

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


def load(path: Path, model: type[Model], *, hint: str) -> Model:
    """The file as ``model``; relative paths in it are relative to its folder.

    Raises FileError FF-FILE-001 when it cannot be read, -002 when it is not TOML, -003 with every option that does not fit.
    """
    try:
        document = parse(path.read_bytes())
    except OSError as error:
        raise FileError("FF-FILE-001", f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except MalformedError as error:
        raise FileError("FF-FILE-002", f"{path}:{error.line}: {error.what}", hint=hint) from error
    try:
        return model.model_validate(document.data, context={"folder": path.parent.absolute()})
    except ValidationError as error:
        found = sorted(
            (_line(document.lines, finding.where), _section(finding.where) + str(finding))
            for finding in findings(model, error)
        )
        listed = "\n".join(f"{path}:{line}: {what}" for line, what in found)
        raise FileError("FF-FILE-003", f"the file cannot be used\n{listed}", hint=hint) from error


def _line(lines: dict[tomlmap.Path, int], where: tomlmap.Path) -> int:
    """Line of the longest part of the path that stands in the file: a missing option is reported at its table."""
    return next(lines[where[:end]] for end in range(len(where), -1, -1) if where[:end] in lines)


def _section(where: tomlmap.Path) -> str:
    tables = [str(part + 1) if isinstance(part, int) else part for part in where[:-1]]
    return f"[{' '.join(tables)}]: " if tables else ""
