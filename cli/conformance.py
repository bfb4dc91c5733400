"""`fedfab conformance`: print the requirement table with its tests."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer


def conformance(
    as_json: Annotated[
        bool, typer.Option("--json", help="Machine-readable: a list of clauses with their tests.")
    ] = False,
    missing: Annotated[bool, typer.Option("--missing", help="Only clauses that no test shows yet.")] = False,
) -> None:
    """Print every clause of T/SIGA 003-2024 with the tests that show it, and what is not covered yet."""
    from rich.console import Console
    from rich.table import Table

    from tools.conformance import table

    clauses = [clause for clause in table() if not (missing and clause.tests)]
    if as_json:
        typer.echo(json.dumps([asdict(clause) for clause in clauses], ensure_ascii=False, indent=2))
        return
    grid = Table("clause", "what it asks", "tests", title="T/SIGA 003-2024", show_lines=True)
    for clause in clauses:
        grid.add_row(clause.id, clause.text, "\n".join(clause.tests) or "[yellow]not covered yet[/]")
    console = Console()
    console.print(grid)
    covered = sum(bool(clause.tests) for clause in clauses)
    console.print(f"{covered} of {len(clauses)} clauses are shown by at least one test")
