"""`fedfab demo`: the main job on loopback, with real processes and real protocols."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Suite(StrEnum):
    """The two suites of cryptography."""

    GM = "gm"
    INTL = "intl"


def demo(
    once: Annotated[bool, typer.Option("--once", help="Exit at the table instead of serving until Ctrl-C.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for results, report, logs and configs; default: a new one.", show_default=False),
    ] = None,
    data: Annotated[
        str, typer.Option(help="plant: simulated machines. cmapss or cmapss:FD003: NASA engines of FEDFAB_DATA.")
    ] = "plant",
    seed: Annotated[int, typer.Option(min=0, help="Of the plant and of the training.")] = 1,
    suite: Annotated[Suite, typer.Option(help="gm: SM2, SM3, SM4. intl: P-256, SHA-256, AES.")] = Suite.GM,
) -> None:
    """Start a coordinator, two gateways and a plant; learn alone, in clusters and together; print what it was worth."""
    from tools.demo.run import Options, run

    run(Options(once=once, out=out, data=data, seed=seed, suite=suite.value))
