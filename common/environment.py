"""``${NAME}`` and ``${NAME:-default}`` in the texts of a parsed document.

Variables are put in after parsing, so whatever a variable holds, it is a value and never a table, a key or a comment. As in a shell, the
default stands in for a variable that is unset or empty. ``$${`` is the text ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

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
