"""Lines of a task's log for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from common.tasklog import Level, TaskLogs

_COLOURS = {"debug": "dim", "info": "green", "warning": "yellow", "error": "bold red"}
_LOOK_S = 0.5
"""How often a followed file is looked at: there is no inotify in the standard library."""


def checked(level: str) -> Level:
    """This level. Raises BadParameter where it is none."""
    from common.tasklog import LEVELS

    for known in LEVELS:
        if level == known:
            return known
    raise typer.BadParameter(f'expected one of {", ".join(LEVELS)}, got "{level}"', param_hint="--level")


def listing(logs: TaskLogs) -> None:
    """The tasks that have a log."""
    from rich.table import Table

    table = Table("task", "kB", "last line", title="logs of tasks")
    for kept in logs.all():
        when = time.strftime("%F %T", time.localtime(kept.written))
        table.add_row(kept.task, f"{kept.size / 1000:,.1f}", when)
    Console().print(table)


def show(logs: TaskLogs, task: str, level: Level, *, follow: bool, raw: bool) -> None:
    """Print the log of one task; exit status 1 where there is none."""
    if not logs.has(task) and not follow:
        typer.echo(f"there is no log of {task}; `fedfab gateway logs` lists those there are", err=True)
        raise typer.Exit(1)
    lines = logs.follow(task, level, pause=lambda: time.sleep(_LOOK_S)) if follow else logs.lines(task, level)
    with suppress(KeyboardInterrupt):
        print_lines(lines, raw=raw)


def print_lines(lines: Iterator[bytes], *, raw: bool) -> None:
    """Each line as it is, or for a person."""
    from common.tasklog import parsed

    console = Console(highlight=False, soft_wrap=True)
    for line in lines:
        if raw:
            sys.stdout.write(line.decode())
            sys.stdout.flush()
        else:
            console.print(_readable(parsed(line)))


def _readable(line: dict[str, Any]) -> Text:
    fields = {
        name: value for name, value in line.items() if name not in ("timestamp", "level", "event", "task", "exception")
    }
    level = str(line.get("level", ""))
    text = Text.assemble(
        (str(line.get("timestamp", ""))[:19].replace("T", " "), "dim"),
        (f" {level:<7} ", _COLOURS.get(level, "")),
        (str(line.get("event", "")), "bold"),
    )
    for name, value in fields.items():
        text.append(f"  {name}=", "cyan").append(_short(value))
    if "exception" in line:
        text.append(f"\n{line['exception']}")
    return text


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_short(each)}" for name, each in value.items()) + "}"
    return str(value)
