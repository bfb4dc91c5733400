"""Brings files that people wrote to the present layout: what would change, and the change, with the old file kept beside the new."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.files import write_atomic
from common.layout import KEY, Layout, VersionError
from common.tomlfile import FileError, MalformedError, parse


class Rewrite(NamedTuple):
    """One file that is not of the present layout."""

    file: Path
    old: str
    new: str
    backup: Path

    def diff(self) -> str:
        """What changes, as a unified diff."""
        old, new = self.old.splitlines(keepends=True), self.new.splitlines(keepends=True)
        return "".join(difflib.unified_diff(old, new, str(self.file), f"{self.file} (new)"))


def plan(files: Sequence[Path], layout: Layout) -> list[Rewrite]:
    """Of these files, the main one first, those that have something to move. A piece without a version has that of the main file.

    Raises FileError: FF-FILE-001 or -002 where a file cannot be read, -005 where only a person can change it.
    """
    found: list[Rewrite] = []
    without = 1
    for file in files:
        try:
            content = file.read_bytes()
            data, lines = parse(content)
        except OSError as error:
            raise FileError(
                "FF-FILE-001", f"{file} cannot be read: {error.strerror}", hint="name another file with -c"
            ) from error
        except MalformedError as error:
            raise FileError("FF-FILE-002", f"{file}:{error.line}: {error.what}", hint="correct that line") from error
        try:
            version = layout.version_of(data, without)
            new = layout.rewritten(content.decode(), without)
        except VersionError as error:
            place = f"{file}:{lines.get((KEY,), 1)}"
            raise FileError(
                "FF-FILE-005", f"{place}: {error}", hint="nothing was changed; do that, then try again"
            ) from error
        if file == files[0]:
            without = version
        if new != content.decode():
            found.append(Rewrite(file, content.decode(), new, file.with_name(f"{file.name}.v{version}.bak")))
    return found


def write(rewrites: Iterable[Rewrite]) -> None:
    """Replace the files, each whole or not at all, with the mode and owner they had; the old ones are kept as their backups.

    The main file comes last, because its version is that of all pieces that say none.
    """
    for rewrite in reversed(list(rewrites)):
        had = rewrite.file.stat()
        for file, text in ((rewrite.backup, rewrite.old), (rewrite.file, rewrite.new)):
            write_atomic(file, text.encode(), mode=had.st_mode & 0o777, owner=(had.st_uid, had.st_gid))
