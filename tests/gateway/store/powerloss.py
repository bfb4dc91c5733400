"""What a power cut may leave on the disk, out of a trace of everything a process did to the files of a folder (`powerloss.c`).

What was synchronised is there. Of what was written since, anything may be there: nothing, all, a beginning, any part of it in sectors
of 512 bytes, in any order, the last sector torn. Names (created, renamed, removed) are kept in their order, but any number of the last
ones may be missing until the folder is synchronised.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_HEAD = struct.Struct("<BBHIQ")


class Operation(IntEnum):
    """As in powerloss.c."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    UNLINK = 5
    RENAME = 6
    LINK = 7


class Event(NamedTuple):
    """One thing that was done to a file."""

    operation: Operation
    name: str
    offset: int
    data: bytes


def record(command: Sequence[str], folder: Path, work: Path) -> list[Event]:
    """Run a command to its end and give what it did to the files of ``folder``, which is empty at first."""
    shim, trace = work / "powerloss.so", work / "trace"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", shim, source, "-ldl", "-lpthread"], check=True)
    watched = {"LD_PRELOAD": str(shim), "POWERLOSS_FOLDER": str(folder), "POWERLOSS_TRACE": str(trace)}
    subprocess.run(command, env=os.environ | watched, check=True, stdout=subprocess.DEVNULL)
    return list(_events(trace.read_bytes()))


def _events(trace: bytes) -> Iterator[Event]:
    at = 0
    while at < len(trace):
        operation, name, _, length, offset = _HEAD.unpack_from(trace, at)
        at += _HEAD.size
        yield Event(Operation(operation), trace[at : at + name].decode(), offset, trace[at + name : at + name + length])
        at += name + length


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, bytes | None]] = field(default_factory=list)
    """Writes (offset, data) and truncations (length, None) after the last synchronisation."""

    def sync(self) -> None:
        for change in self.since:
            _change(self.synced, *change)
        self.since.clear()

    def after_a_cut(self, chance: random.Random) -> bytes:
        """One of the contents that this file may have."""
        content = bytearray(self.synced)
        match chance.choice(("nothing", "all", "beginning", "some", "sectors")):
            case "all":
                kept = self.since
            case "beginning":
                kept = self.since[: chance.randint(0, len(self.since))]
                if kept and kept[-1][1] is not None:
                    offset, data = kept[-1]
                    kept = [*kept[:-1], (offset, data[: chance.randint(0, len(data))])]  # type: ignore[index, arg-type]
            case "some":
                kept = [change for change in self.since if chance.random() < 0.5]
            case "sectors":
                kept = [part for change in self.since for part in _sectors(*change) if chance.random() < 0.7]
            case _:
                kept = []
        for change in kept:
            _change(content, *change)
        return bytes(content)


def _change(content: bytearray, offset: int, data: bytes | None) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    for at in range(0, len(data), SECTOR):
        yield offset + at, data[at : at + SECTOR]


class Disk:
    """The disk under a folder, event by event."""

    def __init__(self) -> None:
        self._names: dict[str, _File] = {}
        self._synced: dict[str, _File] = {}
        self._since: list[dict[str, _File]] = []

    def take(self, event: Event) -> None:
        """What was done next."""
        match event.operation:
            case Operation.WRITE:
                self._names[event.name].since.append((event.offset, event.data))
                return
            case Operation.TRUNCATE:
                self._names[event.name].since.append((event.offset, None))
                return
            case Operation.SYNC if event.name:
                self._names[event.name].sync()
                return
            case Operation.SYNC:
                self._synced, self._since = dict(self._names), []
                return
            case Operation.CREATE:
                self._names[event.name] = _File()
            case Operation.UNLINK:
                self._names.pop(event.name, None)
            case Operation.RENAME:
                self._names[event.data.decode()] = self._names.pop(event.name)
            case Operation.LINK:
                self._names[event.data.decode()] = self._names[event.name]
        self._since.append(dict(self._names))

    def after_a_cut(self, chance: random.Random) -> dict[str, bytes]:
        """One of the states in which the folder may be found if the power goes now."""
        names = chance.choice([self._synced, *self._since])
        contents = {id(file): file.after_a_cut(chance) for file in names.values()}
        return {name: contents[id(file)] for name, file in names.items()}
