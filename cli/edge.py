"""`fedfab gateway run | train | reload | model`: the gateway at work. Mounted by `cli.gateway`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.configuration import warn_of_age

if TYPE_CHECKING:
    from federation.rounds import RoundReport
    from gateway.modelstore import Evidence, ModelStore

model = typer.Typer(no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The gateway's TOML file.")]
ModelName = Annotated[str, typer.Argument(help="Name of the model, as `model list` shows it.")]
DEFAULT_CONFIG = Path("gateway.toml")


def run(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Read the machines, serve predictions, learn with the coordinator; until SIGTERM or Ctrl-C."""
    from common.log import configure
    from gateway import daemon
    from gateway.config.layout import LAYOUT
    from gateway.configfile import load

    loaded = load(config)
    configure(loaded.log.level, loaded.log.format)
    warn_of_age("gateway", config, loaded.version, LAYOUT)
    daemon.run(loaded, lambda: load(config))


def train(
    task: Annotated[Path, typer.Argument(help="The task's TOML file.")],
    config: ConfigFile = DEFAULT_CONFIG,
    layer: Annotated[
        str | None, typer.Option(help="cluster or end: overrides the task's own.", show_default=False)
    ] = None,
) -> None:
    """Train the clusters of this gateway with no coordinator; a running gateway serves the new models at once."""
    import asyncio

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from federation.taskfile import load_task
    from gateway import alone
    from gateway.configfile import load
    from gateway.seeing import logs
    from models.spec import TaskSpec

    loaded = load(config)
    logs.start(loaded, "warning")  # the bars tell the rest; the log of the task has all of it
    spec = load_task(task)
    if layer is not None:
        spec = TaskSpec.model_validate(spec.model_dump() | {"layer": layer})
    console = Console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = {}

        async def observe(report: RoundReport) -> None:
            if report.name not in bars:
                bars[report.name] = progress.add_task(report.name, total=spec.rounds.max, metrics="")
            metrics = " ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
            progress.update(bars[report.name], completed=report.round, metrics=metrics)

        results = asyncio.run(alone.learn(loaded, spec, observe))
    for name, result in results.items():
        _result(console, name, result)
    if any("error" in result for result in results.values()):
        raise typer.Exit(1)


def reload(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Have the running gateway take its changed file over; only what changed is touched. A bad file leaves all as it is."""
    from gateway.configfile import load
    from gateway.demand import reload

    reload(load(config))
    Console().print(f"{config} is in force", highlight=False)


@model.command("list")
def list_models(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """All models of this gateway with their versions, metrics and why they are, or are not, in use."""
    models = _models(config)
    rows = []
    for name in models.names():
        in_use = models.in_use(name)
        for version in models.versions(name):
            evidence = models.evidence(name, version)
            rows.append(
                {
                    "model": name,
                    "version": version,
                    "in use": "yes" if in_use and in_use.version == version else "",
                    "made": evidence.created.astimezone().strftime("%Y-%m-%d %H:%M"),
                    "validation": _spread(evidence),
                    "verdict": evidence.verdict,
                }
            )
    _table(Console(), "models", ("model", "version", "in use", "made", "validation", "verdict"), rows)


@model.command()
def show(name: ModelName, version: Annotated[int, typer.Argument()], config: ConfigFile = DEFAULT_CONFIG) -> None:
    """The whole evidence of a version: its task, data, settings, metrics of each end, and the verdict."""
    Console().print_json(_models(config).evidence(name, version).model_dump_json())


@model.command()
def promote(
    name: ModelName,
    version: Annotated[int, typer.Argument(help="The version to serve.")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Put a version in use; a running gateway serves it from the next request on."""
    in_use = _models(config).promote(name, version, "promoted by hand")
    Console().print(f"{name}: version {in_use.version} is in use", highlight=False)


@model.command()
def rollback(name: ModelName, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Put the version back in use that the current one replaced."""
    in_use = _models(config).roll_back(name, "rolled back by hand")
    Console().print(f"{name}: version {in_use.version} is in use", highlight=False)


def _models(config: Path) -> ModelStore:
    from gateway.configfile import load
    from gateway.modelstore import ModelStore

    return ModelStore(load(config).gateway.data_dir / "models")


def _spread(evidence: Evidence) -> str:
    """The task's own metric over the ends, from the best to the worst."""
    from models.metrics import primary

    metric, _ = primary(evidence.spec)
    reached = sorted(metrics[metric] for metrics in evidence.metrics.values() if metric in metrics)
    if not reached:
        return ""
    return f"{metric} {reached[0]:.4g}" + (f" … {reached[-1]:.4g}" if len(reached) > 1 else "")


def _result(console: Console, name: str, result: dict[str, Any]) -> None:
    if error := result.get("error"):
        console.print(f"[bold red]{name}[/] {error['code']}: ", end="")
        console.print(error["message"], markup=False, highlight=False)
        return
    end = "converged" if result["converged"] else "all done"
    console.print(
        f"[bold]{name}[/] version {result['version']}: {result['verdict']} · {result['rounds']} rounds, {end}",
        highlight=False,
    )


def _table(console: Console, title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, no_wrap=column in ("model", "name"))
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    console.print(table)
