"""What `fedfab gateway config` and `fedfab coordinator config` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich.console import Console
from rich.syntax import Syntax

if TYPE_CHECKING:
    from common.layout import Layout

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]


def migrate(files: Sequence[Path], layout: Layout, *, dry_run: bool) -> None:
    """Show what changes in these files, and write it."""
    from common import upgrade

    console = Console(highlight=False)
    rewrites = upgrade.plan(files, layout)
    if not rewrites:
        console.print(f"{files[0]}: nothing to do, version {layout.version} is the present one", soft_wrap=True)
        return
    for rewrite in rewrites:
        console.print(Syntax(rewrite.diff(), "diff", background_color="default"), soft_wrap=True)
    if dry_run:
        console.print("nothing was written")
        return
    upgrade.write(rewrites)
    for rewrite in rewrites:
        console.print(f"wrote {rewrite.file}, the file from before is {rewrite.backup}", soft_wrap=True)


def warn_of_age(program: str, file: Path, version: int, layout: Layout) -> None:
    """Say once that the daemon reads a file of an older version, and what brings it to the present one."""
    if version < layout.version:
        structlog.get_logger().warning(
            "the configuration is of an older version and was understood all the same",
            version=version,
            present=layout.version,
            command=f"fedfab {program} config migrate -c {file}",
        )
