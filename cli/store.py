"""`fedfab gateway store …`: look at the feature store, verify it, copy it, export it. Mounted by `cli.gateway`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.store import Store
    from gateway.store.check import Report
    from gateway.store.views import Span

app = typer.Typer(no_args_is_help=True)

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The gateway's TOML file.")]
Since = Annotated[
    str | None,
    typer.Option(
        help="From this time on (source time, UTC): 2026-11-20, 2026-11-20T06:30, or back from now: 90m, 12h, 7d."
    ),
]
Until = Annotated[str | None, typer.Option(help="Up to this time; written as --since.")]
Names = Annotated[
    list[str] | None, typer.Option("--source", "--end", help="Only this source (raw) or end; again for more.")
]
DEFAULT_CONFIG = Path("gateway.toml")

_AGO = {"m": 60, "h": 3600, "d": 86_400}


class LayerChoice(StrEnum):
    """A layer of the store."""

    RAW = "raw"
    FEATURES = "features"
    RESULTS = "results"


class FormatChoice(StrEnum):
    """A format to export to."""

    PARQUET = "parquet"
    CSV = "csv"


@app.command()
def info(
    config: ConfigFile = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """What the store holds: layers, sizes, times, what was dropped or found damaged. The gateway may be running."""
    from gateway.store.overview import overview

    with _opened(config) as (_, store):
        found = overview(store)
    console = Console()
    if as_json:
        console.print_json(data=found)
        return
    console.print(f"{found['path']}: {_size(found['file_bytes'])} on disk", highlight=False)
    table = Table("layer", "of", "entries", "size", "from, to (UTC)", "dropped", "damaged", box=box.SIMPLE)
    for row in found["held"]:
        times = f"{_time(row['first'])}\n{_time(row['last'])}".strip()
        dropped = f"{row['dropped']:,}" + (f"\n({row['unprepared']:,} without features)" if row["unprepared"] else "")
        size = (f"{row['entries']:,}", _size(row["bytes"]))
        table.add_row(row["layer"], row["of"], *size, times, dropped, f"{row['damaged']:,}")
    console.print(table)
    if found["damage"]:
        table = Table("found", "layer", "of", "block", "entries", "why", title="blocks set aside as damaged")
        for row in found["damage"]:
            what = (row["layer"], row["name"], str(row["block"]), f"{row['entries']:,}", row["reason"])
            table.add_row(_time(row["found"]), *what)
        console.print(table)
    for place in found["aside"]:
        console.print(f"set aside: {place}", highlight=False)


@app.command()
def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Verify every checksum; exit status 1 if anything is not what was written. Beside a running gateway it changes nothing.

    While the gateway is stopped, damaged blocks are set aside, and a damaged file is replaced by one with all that can be read.
    """
    from gateway.store.check import check as verify

    with _opened(config, write=True) as (_, store), _progress("verified") as progress:
        report = verify(store, progress)
        changed = not store.file.read_only
    console = Console()
    _report(console, report)
    if not report.sound:
        after = (
            "it was set aside"
            if changed
            else "the running gateway goes round it; stop it and check again to set it aside"
        )
        console.print(f"[bold red]not sound[/]: {after}")
        raise typer.Exit(1)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The file to make; it must not exist.")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Copy the store while the gateway runs: one state of it, verified before the file gets its name."""
    from gateway.store.backup import back_up

    with _progress("copied") as progress:
        made = back_up(_loaded(config).gateway.store, target, progress)
    console = Console()
    _report(console, made.report)
    console.print(f"wrote {made.path}: {_size(made.bytes)}", highlight=False)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A file that `backup` has made.", exists=True, dir_okay=False)],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Put a backup in the place of the store; the gateway must not be running. The old store is kept beside it."""
    from gateway.store import backup

    path = _loaded(config).gateway.store
    kept = backup.restore(source, path)
    console = Console()
    console.print(f"restored {path}", highlight=False)
    if kept is not None:
        console.print(f"the store before is kept as {kept}; remove it when all is well", highlight=False)


@app.command()
def export(
    target: Annotated[Path, typer.Argument(help="Folder, or for one table a file that ends in .parquet or .csv.")],
    *,
    layer: Annotated[LayerChoice, typer.Option(help="What to write.")],
    config: ConfigFile = DEFAULT_CONFIG,
    names: Names = None,
    since: Since = None,
    until: Until = None,
    form: Annotated[
        FormatChoice, typer.Option("--format", help="Parquet keeps units as metadata; CSV is text.")
    ] = FormatChoice.PARQUET,
) -> None:
    """Write a layer to Parquet or CSV; features as one file for each end. The gateway may be running."""
    from gateway.store import views

    with _opened(config) as (loaded, store), _progress("rows") as progress:
        units, span = _units(loaded), _span(names, since, until)
        rows = _Sum(progress)
        written = views.export(store, layer.value, target, form.value, span, units=units, progress=rows)
        skipped = len(store.finder.skipped)
    console = Console()
    for place, count in written.items():
        console.print(f"wrote {place}: {count:,} rows", highlight=False)
    _say_skipped(console, skipped)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over raw, features, features_<end>, results.")],
    *,
    config: ConfigFile = DEFAULT_CONFIG,
    names: Names = None,
    since: Since = None,
    until: Until = None,
    most: Annotated[int, typer.Option(min=1, help="Rows shown at most.")] = 100,
) -> None:
    """Ask the store in SQL (DuckDB's); only the times, sources and ends asked for are read. The gateway may be running."""
    from gateway.store import views

    with _opened(config) as (_, store), _progress("rows read") as progress:
        found = views.ask(store, query, _span(names, since, until), most=most, progress=_Sum(progress))
        skipped = len(store.finder.skipped)
    console = Console()
    table = Table(*found.columns)
    for row in found.rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)
    console.print(
        f"{len(found.rows):,} rows" + (f" and more: raise --most {most}" if found.more else ""), highlight=False
    )
    _say_skipped(console, skipped)


class _Sum:
    """Adds up what comes in parts."""

    def __init__(self, show: Any) -> None:
        self._show, self._done = show, 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._show(self._done, None)


@contextmanager
def _progress(what: str) -> Iterator[Any]:
    """A bar on standard error while something runs: gives ``show(done, total)``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(separator=" of "), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _loaded(config: Path) -> Config:
    from gateway.configfile import load

    return load(config)


@contextmanager
def _opened(config: Path, *, write: bool = False) -> Iterator[tuple[Config, Store]]:
    """Configuration and store; with ``write`` for writing, unless the gateway runs."""
    from gateway.errors import StoreError
    from gateway.store import Store

    loaded = _loaded(config)
    path = loaded.gateway.store
    read_only = not write or not path.exists()
    try:
        store = Store.open(path, read_only=read_only)
    except StoreError as error:
        if read_only or error.code != "FF-STORE-001":
            raise
        store = Store.open(path, read_only=True)
    with store:
        yield loaded, store


def _span(names: list[str] | None, since: str | None, until: str | None) -> Span:
    from gateway.store.views import Span

    most = Span()
    times = (most.since if since is None else _moment(since), most.until if until is None else _moment(until))
    return Span(*times, tuple(names or ()))


def _moment(text: str) -> int:
    """Nanoseconds since the epoch. Raises BadParameter."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if ago:
        moment = datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _AGO[ago[2]])
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is no time such as 2026-11-20, 2026-11-20T06:30 or 12h") from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + moment.microsecond * 1000


def _units(config: Config) -> Mapping[str, Mapping[str, str]]:
    """Units of the columns of each end, and of the tags of each source."""
    tags = {source.name: {tag: unit for tag, unit in source.tag_units().items() if unit} for source in config.sources}
    ends = {}
    for end in config.ends:
        schema = config.schema_of(end.cluster)
        ends[end.name] = {field.name: field.unit for field in schema.fields if field.unit}
        if schema.label.unit:
            ends[end.name]["label"] = schema.label.unit
    return tags | ends


def _report(console: Console, report: Report) -> None:
    console.print(f"{report.blocks:,} blocks, {_size(report.bytes)} verified", highlight=False)
    for problem in [*report.file, *report.damaged]:
        console.print(f"  {problem}", markup=False, highlight=False)


def _say_skipped(console: Console, skipped: int) -> None:
    if skipped:
        console.print(f"[bold red]{skipped} damaged blocks are left out[/]: FF-STORE-003")


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _time(nanoseconds: int | None) -> str:
    """A time to the second; also one that `datetime` cannot hold."""
    import numpy as np

    if nanoseconds is None:
        return ""
    return str(np.datetime64(nanoseconds, "ns").astype("datetime64[s]")).replace("T", " ")
