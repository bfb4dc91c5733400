"""`fedfab version`: what is installed, and which cryptography provider serves each algorithm."""

from __future__ import annotations

from importlib.metadata import version as installed

import typer


def version() -> None:
    """Print the version and the cryptography providers chosen on this machine."""
    from trust.suite import providers

    typer.echo(f"fedfab {installed('fedfab')}")
    for algorithm, provider in providers().items():
        typer.echo(f"  {algorithm:<10} {provider}")
