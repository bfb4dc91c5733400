"""The log of each task, apart (clause 9.4.3b): every line that belongs to a task is kept in a file of its own, to be read or downloaded.

A line belongs to the task that is bound in its context (`bind`), or that it names itself. A file holds JSON lines, is bounded in bytes
(its older half is thrown away), and so is the number of files: the task that was silent for longest goes first.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import orjson
import structlog

Level = Literal["debug", "info", "warning", "error"]

LEVELS: tuple[Level, ...] = get_args(Level)

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OLDER = ".1"


class Kept(NamedTuple):
    """One task that has a log."""

    task: str
    size: int
    """Bytes."""
    written: float
    """When the last line came, Unix time."""


class TaskLogs:
    """The logs of all tasks in one folder, and the processor that fills them. Safe for threads.

    A line that cannot be written is counted in `lost` and never harms what is being logged.
    """

    def __init__(self, folder: Path, *, bytes_each: int = 16 << 20, tasks: int = 50, level: Level = "debug") -> None:
        self.folder = folder
        self.lost = 0
        self._bytes_each, self._tasks, self._level = bytes_each, tasks, number(level)
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As a processor of structlog: keep the event if it belongs to a task, and pass it on."""
        task = event.get("task")
        if isinstance(task, str) and _NAME.fullmatch(task) and number(str(event.get("level"))) >= self._level:
            self._keep(task, event)
        return event

    def all(self) -> list[Kept]:
        """Every task that has a log, the one with the newest line first."""
        found = []
        for path in self.folder.glob("*.jsonl"):
            if not path.stem.endswith(_OLDER):
                parts = [part.stat() for part in self._parts(path.stem)]
                found.append(Kept(path.stem, sum(part.st_size for part in parts), parts[-1].st_mtime))
        return sorted(found, key=lambda kept: -kept.written)

    def has(self, task: str) -> bool:
        """Whether there is a log of ``task``."""
        return bool(self._parts(task))

    def lines(self, task: str, level: str = "debug") -> Iterator[bytes]:
        """JSON lines from the oldest to the newest, each with its line end; none for a task without a log."""
        least = number(level)
        for path in self._parts(task):
            with path.open("rb") as file:
                for line in file:
                    if least <= logging.DEBUG or number(str(parsed(line).get("level"))) >= least:
                        yield line

    def follow(self, task: str, level: str = "debug", *, pause: Callable[[], None]) -> Iterator[bytes]:
        """`lines`, and then those that come, for ever; ``pause`` is called whenever there is no more for now."""
        least, waiting = number(level), deque(self._parts(task))
        file: BinaryIO | None = None
        try:
            while True:
                line = file.readline() if file is not None else b""
                if line.endswith(b"\n"):
                    if number(str(parsed(line).get("level"))) >= least:
                        yield line
                    continue
                if not waiting and self._another(task, file):
                    waiting.append(self.path(task))
                if waiting:
                    if file is not None:
                        file.close()
                    file = waiting.popleft().open("rb")
                    continue
                if file is not None:
                    file.seek(-len(line), os.SEEK_CUR)  # the rest of a line that is being written
                pause()
        finally:
            if file is not None:
                file.close()

    def path(self, task: str) -> Path:
        """The file that is written now; also where there is none yet."""
        if not _NAME.fullmatch(task):
            raise ValueError(f"{task!r} is no name of a task")
        return self.folder / f"{task}.jsonl"

    def _another(self, task: str, file: BinaryIO | None) -> bool:
        """Whether lines now go to another file than this one."""
        path = self.path(task)
        return path.exists() and (file is None or os.fstat(file.fileno()).st_ino != path.stat().st_ino)

    def _parts(self, task: str) -> list[Path]:
        if not _NAME.fullmatch(task):
            return []
        return [path for path in (self.folder / f"{task}{_OLDER}.jsonl", self.path(task)) if path.exists()]

    def _keep(self, task: str, event: Mapping[str, Any]) -> None:
        line = orjson.dumps(event, default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
        try:
            with self._lock:
                path = self.path(task)
                if task not in self._sizes:
                    self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                    self._sizes[task] = path.stat().st_size if path.exists() else 0
                    self._prune(task)
                if self._sizes[task] + len(line) > self._bytes_each // 2:
                    path.replace(path.with_name(f"{task}{_OLDER}.jsonl"))
                    self._sizes[task] = 0
                with path.open("ab") as file:
                    file.write(line)
                self._sizes[task] += len(line)
        except (OSError, TypeError):
            self.lost += 1

    def _prune(self, new: str) -> None:
        others = [kept.task for kept in self.all() if kept.task != new]
        for task in others[max(0, self._tasks - 1) :]:
            for path in self._parts(task):
                path.unlink(missing_ok=True)
            self._sizes.pop(task, None)


class Forward:
    """A processor that hands lines of tasks to ``send`` instead of printing them: for a process whose parent keeps the logs."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send

    def __call__(self, logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Pass on what belongs to no task, and what cannot be sent."""
        if "task" not in event:
            return event
        try:
            self._send(orjson.loads(orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)))
        except OSError:
            return event
        raise structlog.DropEvent


def bind(task: str, **more: object) -> None:
    """From here on, all lines of this asyncio task, and of what it starts, belong to ``task``."""
    structlog.contextvars.bind_contextvars(task=task, **more)


def replay(event: Mapping[str, Any], **more: object) -> None:
    """Log a line here that another process has forwarded."""
    fields = {key: value for key, value in event.items() if key not in ("event", "level", "timestamp")}
    level = number(str(event.get("level")))
    structlog.get_logger().log(level, str(event.get("event", "")), **(fields | more))


def number(level: str) -> int:
    """The standard library's number of a level; that of info for one that is none."""
    return logging.getLevelNamesMapping().get(level.upper(), logging.INFO)


def parsed(line: bytes) -> dict[str, Any]:
    """The fields of a line; none where a crash tore it."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
