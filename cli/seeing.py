"""`fedfab gateway status | logs | alerts | diagnose`: the gateway seen from a terminal. Mounted by `cli.gateway`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.edge import DEFAULT_CONFIG, ConfigFile

if TYPE_CHECKING:
    from gateway.config import Config

alerts = typer.Typer(no_args_is_help=True)

EVERY_S = 1.0


def status(
    config: ConfigFile = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="Print it once, as when the output is no terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Watch the running gateway: sources, ends, tasks, predictions, buffers, alerts, the box. Ctrl-C leaves."""
    from cli.screen import print_once
    from gateway.configfile import load
    from gateway.inference.client import status as ask

    loaded, console = load(config), Console()
    if as_json:
        console.print_json(data=ask(loaded))
    elif once or not console.is_terminal:
        print_once(console, ask(loaded))
    else:
        with suppress(KeyboardInterrupt):
            _watch(loaded, console)


def _watch(config: Config, console: Console) -> None:
    """Redraw once a second. A gateway that is restarted is waited for."""
    import time

    from rich.live import Live
    from rich.text import Text

    from cli.screen import screen
    from gateway.errors import GatewayError
    from gateway.inference.client import status as ask

    before, now = None, ask(config)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screen(now, before, console.width), refresh=True)
            time.sleep(EVERY_S)
            try:
                before, now = now, ask(config)
            except GatewayError as error:
                live.update(Text(f"waiting for the gateway: {error.message}", "yellow"), refresh=True)
                before = None
                time.sleep(EVERY_S)
                with suppress(GatewayError):
                    now = ask(config)


def logs(
    task: Annotated[
        str | None, typer.Argument(help="The task, as `status` shows it. Without one: which have a log.")
    ] = None,
    config: ConfigFile = DEFAULT_CONFIG,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with lines as they come, until Ctrl-C.")
    ] = False,
    level: Annotated[str, typer.Option(help="The least level: debug, info, warning, error.")] = "debug",
    raw: Annotated[bool, typer.Option("--json", help="JSON lines as they are kept, for a file or a program.")] = False,
) -> None:
    """Show the log of a task, or list the tasks that have one. The gateway need not run."""
    from cli.loglines import checked, listing, show
    from gateway.configfile import load
    from gateway.seeing.logs import task_logs

    kept = task_logs(load(config))
    least = checked(level)
    if task is None:
        return listing(kept)
    show(kept, task, least, follow=follow, raw=raw)


@alerts.command("test")
def trial(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Send a trial through every sink of the file; exit status 1 if one was not told. The gateway need not run."""
    import asyncio
    import time

    from gateway.configfile import load
    from gateway.seeing import watch

    loaded, console = load(config), Console(highlight=False)
    found = asyncio.run(watch.trial(loaded.alerts, loaded.gateway.name, time.time()))
    if not found:
        console.print(r"no sink is configured: add \[\[alerts.webhook]], \[\[alerts.mqtt]] or \[\[alerts.email]]")
    for name, error in found:
        console.print(f"[green]told[/]   {name}" if error is None else f"[bold red]failed[/] {name}: ", end="")
        console.print("" if error is None else error.message, markup=False)
    if any(error for _, error in found):
        raise typer.Exit(1)


@alerts.command("list")
def rules(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """The rules in force: those that are there without a word, and those of the file."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Column, Table

    from gateway.configfile import load

    metric_column = Column("metric", overflow="fold")
    table = Table("rule", "severity", metric_column, "when", "for", title="alert rules", box=SIMPLE_HEAD)
    for rule in load(config).rules:
        metric = rule.metric or ""
        if rule.divided_by:
            metric += f" / {rule.divided_by}"
        if rule.increase_over_s:
            metric += f", growth in {rule.increase_over_s:g} s"
        selected = "".join(f" {name}={value}" for name, value in rule.labels.items())
        sign = "above" if rule.above is not None else "below"
        until = "" if rule.clear is None else f", clear {rule.clear:g}"
        table.add_row(
            rule.name, rule.severity, metric + selected, f"{sign} {rule.threshold:g}{until}", f"{rule.for_s:g} s"
        )
    Console().print(table)


def diagnose(
    config: ConfigFile = DEFAULT_CONFIG,
    out: Annotated[Path | None, typer.Option(help="Where to write it.", show_default="fedfab-NAME-TIME.zip")] = None,
) -> None:
    """Collect what somebody who helps has to know in one ZIP file, without secrets. The gateway may be down."""
    from gateway.seeing.diagnose import diagnose as collect

    written, lines = collect(config, out)
    console = Console(highlight=False)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"[bold]{written}[/]", soft_wrap=True)
