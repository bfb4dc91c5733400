"""Where each key of a TOML file stands, which `tomllib` does not tell: its line, for a message, and its characters, for an edit."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?"""{1,3}(?!")|' + r"'''.*?'''{1,3}(?!')|" + r'"(?:\\.|[^"\\\n])*"|' + r"'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def lines(text: str) -> dict[Path, int]:
    """Line (from 1) of each key and each element of an array, by the path that leads to it in the parsed document.

    ``text`` must be valid TOML: have `tomllib` accept it first.
    """
    return _Map(text).found


class Pair(NamedTuple):
    """Where ``key = value`` stands, as positions in the text."""

    start: int
    """Of the whole key, its dotted part included."""
    key: slice
    """The last part of the key."""
    value: slice
    inline: bool
    """Whether it stands within braces, and so shares its line with others."""


def pairs(text: str) -> dict[Path, Pair]:
    """Each pair of key and value, by the path that leads to it. ``text`` must be valid TOML."""
    return _Map(text).pairs


class _Map:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.sizes: dict[Path, int] = {}  # of arrays of tables
        self.found: dict[Path, int] = {(): 1}
        self.pairs: dict[Path, Pair] = {}
        self.token = slice(0, 0)  # the key read last
        self._document()

    def _document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self.text):
            line = self.at
            if self._take("[["):
                table = self._table(self._key(), line, element=True)
                self._take("]]")
            elif self._take("["):
                table = self._table(self._key(), line, element=False)
                self._take("]")
            else:
                self._pair(table)

    def _table(self, keys: list[str], start: int, *, element: bool) -> Path:
        path: Path = ()
        for i, key in enumerate(keys):
            path = (*path, key)
            self._note(path, start)
            if element and i == len(keys) - 1:
                self.sizes[path] = self.sizes.get(path, 0) + 1
            if path in self.sizes:
                path = (*path, self.sizes[path] - 1)
                self._note(path, start)
        return path

    def _pair(self, path: Path, *, inline: bool = False) -> None:
        start = self.at
        for key in self._key():
            path = (*path, key)
            self._note(path, start)
        last = self.token
        self._take("=")
        value = self._skip(_SPACE)
        self._value(path)
        end = value + len(self.text[value : self.at].rstrip())
        self.pairs[path] = Pair(start, last, slice(value, end), inline)

    def _value(self, path: Path) -> None:
        if self._take("["):
            number = 0
            while self._skip(_BLANK) is not None and not self._take("]"):
                self._note((*path, number), self.at)
                self._value((*path, number))
                number += 1
                self._skip(_BLANK)
                self._take(",")
        elif self._take("{"):
            while self._skip(_BLANK) is not None and not self._take("}"):
                self._pair(path, inline=True)
                self._skip(_BLANK)
                self._take(",")
        else:
            self._read(_STRING, _SCALAR)

    def _key(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            start = self.at
            key = self._read(_BARE_KEY, _STRING)
            self.token = slice(start, self.at)
            keys.append(tomllib.loads(f"key = {key}")["key"] if key[0] in "\"'" else key)
            self._skip(_SPACE)
            if not self._take("."):
                return keys

    def _note(self, path: Path, at: int) -> None:
        self.found.setdefault(path, bisect_right(self.starts, at))

    def _skip(self, pattern: re.Pattern[str]) -> int:
        self._read(pattern)
        return self.at

    def _read(self, *patterns: re.Pattern[str]) -> str:
        for pattern in patterns:
            if match := pattern.match(self.text, self.at):
                self.at = match.end()
                return match[0]
        raise ValueError(f"not TOML at character {self.at}")

    def _take(self, token: str) -> bool:
        taken = self.text.startswith(token, self.at)
        self.at += len(token) * taken
        return taken
