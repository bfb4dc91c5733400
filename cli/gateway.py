"""`fedfab gateway`: the daemon at the plant and what prepares it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from cli import configuration, edge, seeing, store

if TYPE_CHECKING:
    from connectors.contract import Sample
    from gateway.config import Config
    from gateway.probe import Reading

app = typer.Typer(no_args_is_help=True)
config_app = typer.Typer(no_args_is_help=True)
app.add_typer(config_app, name="config", help="The configuration file explained.")

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The gateway's TOML file.")]
DEFAULT_CONFIG = Path("gateway.toml")
DAY_S = 86_400


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write gateway.toml and conf.d/.")],
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where its data will lie; default: the folder data beside it.", show_default=False),
    ] = None,
) -> None:
    """Write a commented configuration to start from; it passes `check` as it is."""
    from gateway.configfile import write_sample

    file = write_sample(folder, data_dir)
    console = Console()
    console.print(f"wrote {file}", highlight=False)
    console.print(f"next: edit it, then `fedfab gateway check -c {file} --probe`", highlight=False)


@app.command()
def check(
    config: ConfigFile = DEFAULT_CONFIG,
    probe: Annotated[
        bool, typer.Option("--probe", help="Also connect to every source and read each tag once.")
    ] = False,
    timeout_s: Annotated[float, typer.Option(help="With --probe: how long to wait for a source, seconds.")] = 10.0,
) -> None:
    """Find every mistake in the configuration; exit status 2 if there is one, 1 if a probed source does not answer."""
    import asyncio

    from gateway import probe as probing
    from gateway.configfile import load

    loaded = load(config)
    console = Console()
    _summary(console, loaded)
    if probe:
        readings = asyncio.run(probing.probe(loaded.sources, timeout_s))
        _readings(console, readings)
        if any(reading.error for reading in readings):
            raise typer.Exit(1)


@app.command()
def rebuild(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Make all feature rows again from the raw samples; the gateway must not be running."""
    from gateway import preparation
    from gateway.configfile import load
    from gateway.store import Store

    loaded = load(config)
    with Store.open(loaded.gateway.store) as opened:
        done = preparation.rebuild(loaded, opened)
        rows, damaged = opened.counts()["features"], done.damaged
    table = Table("end", "field", "samples", "rejected", title="features made again")
    for end, fields in done.counts().items():
        for name, counts in fields.items():
            rejected = ", ".join(f"{n} {rule}" for rule, n in counts.items() if n and rule != "samples")
            table.add_row(end, name, str(counts["samples"]), rejected)
    console = Console()
    console.print(table)
    for end in done.counts():
        console.print(f"{end}: {rows.get(end, 0)} rows", highlight=False)
    if damaged:
        console.print(f"[bold red]{damaged} raw blocks are damaged and in no row[/]: FF-STORE-003")
        raise typer.Exit(1)


app.command()(edge.run)
app.command()(edge.train)
app.command()(edge.reload)
app.command()(seeing.status)
app.command()(seeing.logs)
app.command()(seeing.diagnose)
app.add_typer(seeing.alerts, name="alerts", help="Alert rules, and a trial of those who are told.")
app.add_typer(edge.model, name="model", help="The models of this gateway: list, promote, roll back.")
app.add_typer(store.app, name="store", help="The feature store: look at it, verify, back up, restore, export.")


@config_app.command()
def docs(
    sections: Annotated[bool, typer.Option(help="Explain the sections that every gateway has.")] = True,
    sources: Annotated[bool, typer.Option(help="Explain the sections of every type of source.")] = True,
) -> None:
    """Every option: what it takes, its default, its meaning (Markdown)."""
    from gateway.configdocs import markdown

    typer.echo(markdown(sections=sections, sources=sources))


@config_app.command()
def schema() -> None:
    """JSON schema of the file, for editors that complete and check while typing."""
    import json

    from gateway import configdocs

    typer.echo(json.dumps(configdocs.schema(), indent=2, ensure_ascii=False))


@config_app.command()
def migrate(config: ConfigFile = DEFAULT_CONFIG, dry_run: configuration.DryRun = False) -> None:
    """Bring the file and its conf.d to the present version: shows the changes, keeps comments and the old files (*.bak)."""
    from gateway.config.layout import LAYOUT
    from gateway.configfile import files_of

    configuration.migrate(files_of(config), LAYOUT, dry_run=dry_run)


def _summary(console: Console, config: Config) -> None:
    parent = config.coordinator.url if config.coordinator else "none, learns alone"
    suite = config.trust.suite if config.trust else "none"
    console.print(f"gateway [bold]{config.gateway.name}[/] · inference: {config.inference.listen}", highlight=False)
    console.print(f"coordinator: {parent} · suite: {suite}", highlight=False)
    table = Table("source", "type", "tags", title="sources")
    for source in config.sources:
        off = "" if source.enabled else " (not enabled)"
        table.add_row(source.name + off, source.type, str(len(source.tag_names())))
    console.print(table)
    if not config.clusters:
        return
    table = Table("cluster", "features", "label", "ends", "schema", title="clusters")
    for cluster in config.clusters:
        shape = cluster.row_schema
        features = ", ".join(_with_unit(field.name, field.unit) for field in shape.fields)
        ends = ", ".join(end.name for end in config.ends_of(cluster.name))
        table.add_row(cluster.name, features, _with_unit(shape.label.name, shape.label.unit), ends, shape.digest())
    console.print(table)


def _readings(console: Console, readings: list[Reading]) -> None:
    for reading in readings:
        if reading.error:
            console.print(f"[bold red]{reading.source.name}[/] does not answer: ", end="")
            console.print(reading.error, markup=False, highlight=False)
            continue
        units = reading.source.tag_units()
        table = Table(title=f"{reading.source.name}: one reading of every tag")
        for heading in ("tag", "value", "unit", "quality", "source time (UTC)", "age"):
            table.add_column(heading, overflow="fold", justify="right" if heading in ("value", "age") else "left")
        for sample in reading.samples:
            age_s = (sample.gateway_time - sample.source_time) / 1e9
            time = datetime.fromtimestamp(sample.source_time / 1e9, UTC)
            shown = time.strftime("%H:%M:%S.%f" if abs(age_s) < DAY_S else "%Y-%m-%d %H:%M:%S.%f")[:-3]
            quality, unit = sample.quality.name.lower(), units.get(sample.tag, "")
            table.add_row(sample.tag, _value(sample), unit, quality, shown, f"{age_s:.3f} s")
        console.print(table)


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _value(sample: Sample) -> str:
    match sample.value:
        case None:
            return ""
        case float(number):
            return f"{number:.6g}"
        case other:
            return str(other)
