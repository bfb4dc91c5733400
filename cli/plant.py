"""`fedfab plant`: a simulated plant on real protocols."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plant(
    config: Annotated[Path, typer.Option("--config", "-c", help="The plant file.", show_default=False)],
    tags: Annotated[
        int | None, typer.Option(min=0, help="OPC UA variables to add that change every second, e.g. 5000.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the seed in the file.")] = None,
    addresses: Annotated[bool, typer.Option("--addresses", help="Print where every variable is, and exit.")] = False,
) -> None:
    """Serve the machines of a plant file until Ctrl-C."""
    import asyncio
    from contextlib import suppress

    from rich import print as show

    from tools.plant.config import load
    from tools.plant.plant import run, streams, where

    loaded = load(config).having(filler_tags=tags, seed=seed)
    if addresses:
        for stream in streams(loaded):
            for field, address in where(loaded, stream):
                typer.echo(f"{stream.config.name}.{field}\t{address}")
        return
    with suppress(KeyboardInterrupt):
        asyncio.run(run(loaded, lambda machines: show(f"plant is up: {len(machines)} machines")))
