"""``${NAME}`` and ``${NAME:-default}`` in the texts of a parsed document.

Variables are put in after parsing, so whatever a variable holds, it is a value and never a table, a key or a comment. As in a shell, the
default stands in for a variable that is unset or empty. ``$${`` is the text ``${``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

FILE = "environment"
"""Name of the file beside a configuration that holds variables for it."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\}|\$\{")


class FromEnvironment(str):
    """A text in which variables were put in; a message shows it as it was written, because it may be a secret."""

    __slots__ = ("written",)

    def __new__(cls, value: str, written: str) -> FromEnvironment:
        made = super().__new__(cls, value)
        made.written = written
        return made

    written: str


class Problem(NamedTuple):
    """A variable that cannot be put in: the keys that lead to it, and what is wrong."""

    where: tuple[str | int, ...]
    what: str


def variables(folder: Path) -> dict[str, str]:
    """The variables for a configuration in ``folder``: those of the file ``environment`` there, one ``NAME=value`` a line, and over them
    those of this process. So a service and a command typed by hand know the same.

    Raises OSError, UnicodeDecodeError; and ValueError for a line that is neither, with its number.
    """
    file = folder / FILE
    found: dict[str, str] = {}
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else (), 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip() or name.startswith("#"):
            continue
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"{file}:{number}: expected NAME=value, or # and a remark")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[name] = value[1:-1] if quoted else value
    return {**found, **os.environ}


def substituted(
    value: Any, environment: Mapping[str, str], where: tuple[str | int, ...] = ()
) -> tuple[Any, list[Problem]]:
    """The value with all variables of ``environment`` put in, at any depth, and those that cannot be."""
    if isinstance(value, str):
        return _text(value, environment, where) if "${" in value else (value, [])
    if isinstance(value, Mapping):
        pairs = {key: substituted(each, environment, (*where, key)) for key, each in value.items()}
        return {key: each for key, (each, _) in pairs.items()}, [p for _, found in pairs.values() for p in found]
    if isinstance(value, list):
        items = [substituted(each, environment, (*where, i)) for i, each in enumerate(value)]
        return [each for each, _ in items], [p for _, found in items for p in found]
    return value, []


def as_written(text: str, value: object) -> str:
    """``text`` with everything that came from the environment into ``value``, at any depth, shown as it was written."""
    for each in _within(value):
        if each:
            text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", each.written.replace("\\", r"\\"), text)
    return text


def _text(text: str, environment: Mapping[str, str], where: tuple[str | int, ...]) -> tuple[str, list[Problem]]:
    problems: list[Problem] = []
    used = False

    def put(match: re.Match[str]) -> str:
        nonlocal used
        name, default = match["name"], match["default"]
        if name is None:
            if match[0] == "${":
                problems.append(
                    Problem(where, f'expected ${{NAME}} or ${{NAME:-default}}, got "{text}"; $${{ is a plain ${{')
                )
            return "${"
        used = True
        value = environment.get(name)
        if value or (value is not None and default is None):
            return value
        if default is None:
            problems.append(
                Problem(
                    where, f"the environment variable {name} is not set, and there is no default: ${{{name}:-default}}"
                )
            )
            return ""
        return str(default[2:])

    value = _VARIABLE.sub(put, text)
    return FromEnvironment(value, text) if used else value, problems


def _within(value: object) -> Iterable[FromEnvironment]:
    if isinstance(value, FromEnvironment):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _within(each)
