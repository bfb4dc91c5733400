"""`fedfab task`: federated learning tasks at the coordinator."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.connection import IDENTITY, URL, AsJson, Connection, Identity, Suite, SuiteOption, Url, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coordinator.client import Client
    from coordinator.resources import Event, Task

app = typer.Typer(help="Tasks at the coordinator: submit, list, watch, cancel.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="ID", help="The task, as `fedfab task submit` printed it.")]
Out = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of a table.")]

ROWS = 12
"""Rounds shown of each layer while a task runs; the last ones."""


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="Task file; config/task.toml explains every option.")],
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """Check a task file, submit it and print the id of the task."""
    from federation.taskfile import load_task

    spec = load_task(file)
    task = Connection(coordinator, identity, suite).run(lambda client: client.submit(spec))
    print_json(task) if json else typer.echo(task.id)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only tasks in this state, e.g. running.")] = None,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """List tasks, latest first."""
    found = Connection(coordinator, identity, suite).run(lambda client: client.tasks(state))
    if json:
        return print_json(found)
    table = Table("id", "name", "layer", "state", "members", "submitted", "by", "why")
    for task in found:
        when = task.submitted.strftime("%F %R")
        members = ", ".join(task.members)
        table.add_row(task.id, task.name, task.spec.layer, task.state, members, when, task.submitted_by, task.reason)
    Console().print(table)


@app.command()
def show(
    task: Id,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """Show a task, and where the time of its latest rounds went."""

    async def ask(client: Client) -> tuple[Task, list[Event]]:
        return await client.task(task), [event async for event in client.events(task, follow=False)]

    found, events = Connection(coordinator, identity, suite).run(ask)
    if json:
        return print_json(found)
    _show(found)
    _show_timing(events)


@app.command()
def watch(
    task: Id, *, coordinator: Url = URL, identity: Identity = IDENTITY, suite: SuiteOption = Suite.GM, json: Out = False
) -> None:
    """Follow a task round by round until it ends. Exit status 0: it finished; 1: it failed or was cancelled."""

    async def follow(client: Client) -> Task:
        screen = _Screen(task)
        with nullcontext() if json else Live(screen.table(), console=Console()) as live:
            async for event in client.events(task):
                if json:
                    typer.echo(event.model_dump_json())
                elif live is not None:
                    screen.take(event)
                    live.update(screen.table())
        return await client.task(task)

    found = Connection(coordinator, identity, suite).run(follow)
    if not json:
        _show(found)
    raise typer.Exit(0 if found.state == "finished" else 1)


@app.command()
def logs(
    task: Id,
    level: Annotated[str, typer.Option(help="The least level: debug, info, warning, error.")] = "debug",
    download: Annotated[
        Path | None, typer.Option(help="Write the JSON lines to this file instead of showing them.", show_default=False)
    ] = None,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: Out = False,
) -> None:
    """Show what the coordinator logged of a task, or download it; a gateway keeps its own: `fedfab gateway logs`."""
    from cli.loglines import checked, print_lines

    least = checked(level)
    found = Connection(coordinator, identity, suite).run(lambda client: client.log(task, least))
    if download is None:
        return print_lines(iter(found.splitlines(keepends=True)), raw=json)
    download.write_bytes(found)
    typer.echo(f"{download}: {len(found.splitlines())} lines")


@app.command()
def cancel(
    task: Id,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """Cancel a task, at the members too."""
    found = Connection(coordinator, identity, suite).run(lambda client: client.cancel(task))
    print_json(found) if json else _show(found)


@app.command()
def resume(
    task: Id,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """Go on with a task that failed, after its last finished round."""
    found = Connection(coordinator, identity, suite).run(lambda client: client.resume(task))
    print_json(found) if json else _show(found)


def _show(task: Task) -> None:
    console = Console(highlight=False)
    why = f": {task.reason}" if task.reason else ""
    console.print(f"[bold]{task.name}[/] {task.id} {task.state}{why}", soft_wrap=True)
    console.print(
        f"  layer {task.spec.layer}, members {', '.join(task.members)}, submitted by {task.submitted_by}",
        soft_wrap=True,
    )


def _show_timing(events: Sequence[Event]) -> None:
    """The latest round of each group: who took how long, and for what; the slowest first."""
    from federation.rounds import RoundReport

    bodies = [event.body for event in events if event.kind == "round" and not event.body["final"]]
    latest = {(body["layer"], body["name"]): body for body in bodies}
    table = Table("layer", "name", "round", "member", "s", "compute", "transfer", "wait", "", title="latest rounds")
    for body in latest.values():
        report = RoundReport.from_json({name: value for name, value in body.items() if name != "member"})
        where = report.layer, report.name, str(report.round)
        for member, timing in sorted(report.timing.items(), key=lambda item: -item[1]["total"]):
            parts = (_figure(timing[part]) for part in ("total", "compute", "transfer", "wait"))
            table.add_row(*where, member, *parts, "")
        for member, reason in report.reasons.items():
            table.add_row(*where, member, "–", "–", "–", "–", f"missing: {reason}")
    if table.row_count:
        Console().print(table)


class _Screen:
    """The latest rounds of each layer; a round that a crash undid and that came again replaces itself."""

    def __init__(self, task: str) -> None:
        self._task = task
        self._state = ""
        self._rounds: dict[tuple[object, ...], dict[str, object]] = {}

    def take(self, event: Event) -> None:
        """Show one more event."""
        body = event.body
        if event.kind == "state":
            self._state = str(body["state"])
        elif event.kind == "round":
            key = body["layer"], body["name"], body["round"], body["final"], body.get("autonomous", False)
            self._rounds[key] = dict(body)

    def table(self) -> Table:
        """What is shown now."""
        latest = list(self._rounds.values())[-ROWS:]
        metrics = list(dict.fromkeys(name for report in latest for name in _metrics(report)))
        table = Table(
            "layer",
            "name",
            "round",
            *metrics,
            "train loss",
            "missing",
            "s",
            "slowest",
            title=f"task {self._task} {self._state}",
        )
        for report in latest:
            found = _metrics(report)
            table.add_row(
                str(report["layer"]),
                f"{report['name']} alone" if report.get("autonomous") else str(report["name"]),
                "final" if report["final"] else str(report["round"]),
                *(_figure(found.get(name)) for name in metrics),
                _figure(report["train_loss"]),
                ", ".join(map(str, missing)) if isinstance(missing := report["missing"], list) else "",
                _figure(report["seconds"]),
                _slowest(report),
            )
        return table


def _metrics(report: dict[str, object]) -> dict[str, object]:
    found = report["metrics"]
    return found if isinstance(found, dict) else {}


def _slowest(report: dict[str, object]) -> str:
    """Who took longest, where that is more than one could."""
    timing = report.get("timing")
    if not isinstance(timing, dict) or len(timing) < 2:
        return ""
    return str(max(timing, key=lambda member: timing[member]["total"]))


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"
