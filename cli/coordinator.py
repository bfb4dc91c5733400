"""`fedfab coordinator`: the daemon of the cloud side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli import configuration

app = typer.Typer(help="The cloud side: tasks, model registry, mailbox of the federation.", no_args_is_help=True)

config_app = typer.Typer(no_args_is_help=True)
app.add_typer(config_app, name="config", help="The configuration file explained.")

File = Annotated[Path, typer.Option("-c", "--config", help="Configuration file.")]

FILE = Path("coordinator.toml")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write coordinator.toml.")] = Path(),
) -> None:
    """Write a configuration to start from."""
    from coordinator.configfile import write_sample

    written = write_sample(folder)
    Console().print(
        f"{written}: put the identity folder beside it, then: fedfab coordinator check -c {written}", soft_wrap=True
    )


@app.command()
def check(config: File = FILE) -> None:
    """Check configuration, keys and certificates, and the database; change nothing."""
    from coordinator import check

    for line in check.check(config):
        Console(highlight=False).print(line, markup=False, soft_wrap=True)


@app.command()
def run(
    config: File = FILE,
    ready_fd: Annotated[
        int | None, typer.Option(help="Write the addresses to this descriptor once they serve.")
    ] = None,
) -> None:
    """Serve members and operators until SIGTERM or Ctrl-C."""
    import asyncio

    from coordinator import daemon, seeing
    from coordinator.configfile import load_config
    from coordinator.layout import LAYOUT

    found = load_config(config)
    seeing.start_logging(found)
    configuration.warn_of_age("coordinator", config, found.version, LAYOUT)
    asyncio.run(daemon.run(found, lambda: load_config(config), ready_fd))


@app.command()
def migrate(config: File = FILE) -> None:
    """Bring the database to the present version; `run` does so by itself."""
    from coordinator.configfile import load_config
    from coordinator.db import migrate

    before, after = migrate(load_config(config).database_url)
    typer.echo(f"{before or 'empty'} -> {after}" if before != after else f"{after} already")


@app.command()
def openapi() -> None:
    """Print the OpenAPI document of the management API."""
    import json

    from coordinator.api import openapi_document

    typer.echo(json.dumps(openapi_document(), indent=1, ensure_ascii=False))


@config_app.command()
def docs() -> None:
    """Every option: what it takes, its default, its meaning (Markdown)."""
    from coordinator.configdocs import markdown

    typer.echo(markdown())


@config_app.command()
def schema() -> None:
    """JSON schema of the file, for editors that complete and check while typing."""
    import json

    from coordinator import configdocs

    typer.echo(json.dumps(configdocs.schema(), indent=2, ensure_ascii=False))


@config_app.command("migrate")
def migrate_file(config: File = FILE, dry_run: configuration.DryRun = False) -> None:
    """Bring the file to the present version: shows the changes, keeps comments and the old file (*.bak)."""
    from coordinator.layout import LAYOUT

    configuration.migrate([config], LAYOUT, dry_run=dry_run)
