"""Versions of a kind of TOML file: what moved from one to the next, in memory and in the file, where comments and order stay.

A file says its version in ``version = N`` at its top; one without is of the first. An older file works as it is: its options are moved in
memory. `Layout.rewritten` moves them in the text, too. A newer file is refused, because what it means is not known here.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common import tomlmap
from common.tomlmap import Path

KEY = "version"

Keys = tuple[str, ...]


class VersionError(ValueError):
    """The version of the file cannot be used, or not be left; the text says why."""


class NewerError(VersionError):
    """The file was written for a later version of the product."""


@dataclass(frozen=True, slots=True)
class Move:
    """An option that was found at ``old`` before and is at ``new`` since."""

    old: Keys
    new: Keys


@dataclass(frozen=True, slots=True)
class Layout:
    """All versions of one kind of file; ``changes[0]`` leads from version 1 to version 2."""

    changes: tuple[tuple[Move, ...], ...]

    @property
    def version(self) -> int:
        """The present version."""
        return len(self.changes) + 1

    def version_of(self, data: Mapping[str, Any], without: int = 1) -> int:
        """The version a document says it has, or ``without``. Raises VersionError, NewerError."""
        version = data.get(KEY, without)
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise VersionError(f'"{KEY}": expected a whole number from 1 to {self.version}, got {version!r}')
        if version > self.version:
            raise NewerError(
                f"version {version} belongs to a later fedfab; this one knows versions up to {self.version}"
            )
        return version

    def migrate(self, data: dict[str, Any], lines: dict[Path, int], since: int) -> bool:
        """Move the options of a document, and the lines they stand on. Whether there was anything to move."""
        moved = False
        for old, new in self._moves(data, since):
            lines.update({(*new, *path[len(old) :]): line for path, line in lines.items() if path[: len(old)] == old})
            for end in range(1, len(new)):
                lines.setdefault(new[:end], lines[new])
            moved = True
        return moved

    def rewritten(self, text: str, without: int = 1) -> str:
        """The file in the present version; the same text where it is that already or has nothing to move.

        Raises VersionError where only a person can do it.
        """
        data = tomllib.loads(text)
        since = self.version_of(data, without)
        edited = text
        for old, new in self._moves(data, since):
            edited = _moved(edited, old, new)
        if edited == text:
            return text
        edited = _with_version(edited, self.version)
        if tomllib.loads(edited) != {**data, KEY: self.version}:
            raise VersionError(
                "this file is written in a way that is not safe to edit by itself; move the options by hand"
            )
        return edited

    def _moves(self, data: dict[str, Any], since: int) -> Iterator[tuple[Keys, Keys]]:
        """Old and new place of each option as it moves. One that is given at both is left, to be complained about."""
        for change in self.changes[since - 1 :]:
            for move in change:
                if _get(data, move.old) is not None and _get(data, move.new) is None:
                    _move(data, move.old, move.new)
                    yield move.old, move.new


def _get(data: Any, keys: Keys) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _move(data: dict[str, Any], old: Keys, new: Keys) -> None:
    value = _get(data, old[:-1]).pop(old[-1])
    for key in new[:-1]:
        data = data.setdefault(key, {})
    data[new[-1]] = value


def _moved(text: str, old: Keys, new: Keys) -> str:
    """The text with one pair renamed where it stands, or taken to another table with its comment."""
    pair = tomlmap.pairs(text).get(old)
    if pair is None:
        raise VersionError(f"move {'.'.join(old)} to {'.'.join(new)} by hand: it is a table")
    if old[:-1] == new[:-1]:
        return text[: pair.key.start] + new[-1] + text[pair.key.stop :]
    if pair.inline or len(new) != 2:
        raise VersionError(f"move {'.'.join(old)} to {'.'.join(new)} by hand: it shares its line")
    end = text.find("\n", pair.value.stop) + 1 or len(text)
    line = f"{new[-1]} = {text[pair.value.start : end].rstrip()}\n"
    rest = text[: pair.start] + text[end:]
    header = f"[{new[0]}]"
    for start, each in _lines(rest):
        if each.partition("#")[0].strip() == header:
            after = start + len(each)
            return rest[:after] + line + rest[after:]
    return f"{rest.rstrip()}\n\n{header}\n{line}"


def _with_version(text: str, version: int) -> str:
    pair = tomlmap.pairs(text).get((KEY,))
    if pair is not None:
        return f"{text[: pair.value.start]}{version}{text[pair.value.stop :]}"
    first = next(start for start, line in _lines(text) if line.strip() and not line.lstrip().startswith("#"))
    return f"{text[:first]}{KEY} = {version}\n\n{text[first:]}"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.splitlines(keepends=True):
        yield start, line
        start += len(line)
