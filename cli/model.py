"""`fedfab model`: the coordinator's model registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli.connection import IDENTITY, URL, AsJson, Connection, Identity, Suite, SuiteOption, Url, print_json

if TYPE_CHECKING:
    from coordinator.resources import Model

app = typer.Typer(help="Models the coordinator knows: list, compare, promote, roll back.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Argument(min=1, help="Version of the model.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only versions of this model.")] = None,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """List models, which version is in use, and how good each is."""
    found = Connection(coordinator, identity, suite).run(lambda client: client.models(name))
    if json:
        return print_json(found)
    table = Table("model", "version", "state", "parent", "metrics", "created", "why")
    for model in found:
        parent = str(model.parent or "")
        created = model.created.strftime("%F %R")
        table.add_row(
            model.name, str(model.version), model.state, parent, _figures(model.metrics), created, model.reason
        )
    Console().print(table)


@app.command()
def show(
    name: Name,
    version: Version,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
    params: Annotated[Path | None, typer.Option(help="Write the parameters (safetensors) to this file.")] = None,
) -> None:
    """Show a version: lineage, digest, and the metrics of each participant."""
    connection = Connection(coordinator, identity, suite)
    model = connection.run(lambda client: client.model(name, version))
    if params is not None:
        from common.files import write_atomic

        write_atomic(params, connection.run(lambda client: client.params(name, version)))
    if json:
        return print_json(model)
    console = Console(highlight=False)
    parent = f"after version {model.parent}" if model.parent else "the first of its name"
    console.print(f"[bold]{model.name} {model.version}[/] {model.state}: {model.reason}")
    console.print(f"  made by task {model.task}, {parent}, with {', '.join(model.members)}")
    console.print(f"  sha256 {model.digest}, {model.size} bytes")
    table = Table("participant", *model.metrics)
    for end, metrics in {**model.participants, "all": model.metrics}.items():
        table.add_row(end, *(_figure(metrics.get(metric)) for metric in model.metrics))
    console.print(table)


@app.command()
def promote(
    name: Name,
    version: Version,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """Put a version in use at all its gateways."""
    _done(Connection(coordinator, identity, suite).run(lambda client: client.promote(name, version)), json)


@app.command()
def rollback(
    name: Name,
    *,
    coordinator: Url = URL,
    identity: Identity = IDENTITY,
    suite: SuiteOption = Suite.GM,
    json: AsJson = False,
) -> None:
    """Put the version before back in use at all its gateways."""
    _done(Connection(coordinator, identity, suite).run(lambda client: client.roll_back(name)), json)


def _done(model: Model, json: bool) -> None:
    if json:
        return print_json(model)
    Console(highlight=False).print(
        f"{model.name} version {model.version} is in use; sent to {', '.join(model.members)}", soft_wrap=True
    )


def _figures(metrics: dict[str, float | None]) -> str:
    return "  ".join(f"{name} {_figure(value)}" for name, value in metrics.items())


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
