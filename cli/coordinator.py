"""`fedfab coordinator`: the daemon of the cloud side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="The cloud side: tasks, model registry, mailbox of the federation.", no_args_is_help=True)

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

    from common import log
    from coordinator import daemon
    from coordinator.configfile import load_config

    found = load_config(config)
    log.configure(found.log.level, found.log.style)
    asyncio.run(daemon.run(found, ready_fd))


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
