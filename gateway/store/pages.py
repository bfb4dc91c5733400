"""The rows of a damaged SQLite file, page by page, without trusting anything that points from one page to another but overflow chains.

After https://www.sqlite.org/fileformat2.html, §1.6 (b-tree pages), §2.1 (records) and §4 (the write-ahead log). What makes no sense is
passed over: whether a row is what was written must be known from the row itself. Deleted rows do not turn up again, because the store
overwrites them (``PRAGMA secure_delete``).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

Value = int | float | str | bytes | None
Buffer = bytes | mmap.mmap

_TABLE_LEAF, _INDEX_LEAF = 0x0D, 0x0A
_LOG_HEADER, _FRAME_HEADER = 32, 24
_USUAL = 4096  # bytes of a page, where the header does not tell


class Row(NamedTuple):
    """A row of any table; ``number`` is None in tables without one."""

    number: int | None
    columns: tuple[Value, ...]


def rows(path: Path) -> Iterator[Row]:
    """Every row that can be read, in no particular order, out of the file and its write-ahead log."""
    with ExitStack() as stack:
        pages = _Pages(_mapped(path, stack), _mapped(path.with_name(path.name + "-wal"), stack))
        for number in range(1, pages.count + 1):
            yield from _rows(pages, number)


def _mapped(path: Path, stack: ExitStack) -> Buffer:
    if not path.exists() or not path.stat().st_size:
        return b""
    file = stack.enter_context(path.open("rb"))
    return stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _Pages:
    """The newest committed state of each page."""

    def __init__(self, file: Buffer, log: Buffer) -> None:
        self._file, self._log = file, log
        size = struct.unpack_from(">H", file, 16)[0] if len(file) >= 100 else 0
        self.size = 65536 if size == 1 else size if size >= 512 and size & (size - 1) == 0 else _USUAL
        if len(file) % self.size:
            self.size = _USUAL
        self._newer = _committed(log, self.size)
        self.count = max([len(file) // self.size, *self._newer])

    def page(self, number: int) -> bytes:
        """Raises ValueError where there is none."""
        at = self._newer.get(number)
        if at is not None:
            return self._log[at : at + self.size]
        if not 1 <= number <= len(self._file) // self.size:
            raise ValueError(f"no page {number}")
        return self._file[(number - 1) * self.size : number * self.size]


def _committed(log: Buffer, size: int) -> dict[int, int]:
    """Where the log holds the newest state of each page; only frames of the present generation, up to the last commit."""
    found: dict[int, int] = {}
    waiting: dict[int, int] = {}
    if len(log) < _LOG_HEADER:
        return found
    salts = log[16:24]
    for at in range(_LOG_HEADER, len(log) - size - _FRAME_HEADER + 1, size + _FRAME_HEADER):
        number, commit = struct.unpack_from(">II", log, at)
        if log[at + 8 : at + 16] == salts:
            waiting[number] = at + _FRAME_HEADER
            if commit:
                found.update(waiting)
                waiting.clear()
    return found


def _rows(pages: _Pages, number: int) -> Iterator[Row]:
    page = pages.page(number)
    start = 100 if number == 1 else 0
    kind = page[start]
    if kind not in (_TABLE_LEAF, _INDEX_LEAF):
        return
    (cells,) = struct.unpack_from(">H", page, start + 3)
    for i in range(min(cells, (pages.size - start - 8) // 2)):
        try:
            (at,) = struct.unpack_from(">H", page, start + 8 + 2 * i)
            length, at = _varint(page, at)
            key = None
            if kind == _TABLE_LEAF:
                key, at = _varint(page, at)
            yield Row(key, _record(_payload(pages, page, at, length, kind)))
        except (ValueError, IndexError, struct.error):
            continue


def _payload(pages: _Pages, page: bytes, at: int, length: int, kind: int) -> bytes:
    """What a cell holds, with what flowed over into other pages. Raises ValueError."""
    usable = pages.size
    most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
    if length <= most:
        return page[at : at + length]
    least = (usable - 12) * 32 // 255 - 23
    local = least + (length - least) % (usable - 4)
    local = local if local <= most else least
    pieces, missing = [page[at : at + local]], length - local
    (follows,) = struct.unpack_from(">I", page, at + local)
    if missing > pages.count * usable:
        raise ValueError("longer than the file")
    while missing > 0:
        more = pages.page(follows)
        pieces.append(more[4 : 4 + missing])
        missing -= usable - 4
        (follows,) = struct.unpack_from(">I", more)
    return b"".join(pieces)


def _record(data: bytes) -> tuple[Value, ...]:
    end, at = _varint(data, 0)
    kinds = []
    while at < end:
        kind, at = _varint(data, at)
        kinds.append(kind)
    columns: list[Value] = []
    for kind in kinds:
        value, at = _value(data, at, kind)
        columns.append(value)
    if at != len(data):
        raise ValueError("a record of another length")
    return tuple(columns)


def _value(data: bytes, at: int, kind: int) -> tuple[Value, int]:
    """A value of this serial type (§2.1), and where the next begins."""
    if kind >= 12:
        size = (kind - 12) // 2
        raw = data[at : at + size]
        return raw if kind % 2 == 0 else raw.decode(), at + size
    match kind:
        case 0:
            return None, at
        case 7:
            return struct.unpack_from(">d", data, at)[0], at + 8
        case 8 | 9:
            return kind - 8, at
        case 10 | 11:
            raise ValueError("reserved serial type")
    size = (1, 2, 3, 4, 6, 8)[kind - 1]
    return int.from_bytes(data[at : at + size], "big", signed=True), at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    value = value << 8 | data[at + 8]
    return value - 2**64 if value >= 2**63 else value, at + 9
