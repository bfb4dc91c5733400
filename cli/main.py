"""The `fedfab` command: one sub-command for each room, one way to report an error."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from cli import conformance, coordinator, demo, gateway, model, pki, plant, task, version
from common.errors import FedfabError

app = typer.Typer(
    name="fedfab",
    help="Federated learning for manufacturing: read machines, learn together, answer the MES. No row leaves the plant.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(
    gateway.app, name="gateway", help="The daemon at the plant: configuration, reading, training, predictions."
)
app.add_typer(coordinator.app, name="coordinator", help="The cloud side: tasks, model registry, message relay.")
app.add_typer(task.app, name="task", help="Submit, list, watch and cancel federated learning tasks.")
app.add_typer(model.app, name="model", help="The coordinator's model registry: list, promote, roll back.")
app.add_typer(pki.app, name="pki", help="Keys and certificates of a federation: CA, issue, renew, revoke.")
app.command("plant", help="A simulated plant that speaks OPC UA, Modbus and SQL.")(plant.plant)
app.command("demo", help="The main job on loopback: machines, two layers of learning, predictions.")(demo.demo)
app.command("conformance", help="The standard's clauses and the tests that show each of them.")(conformance.conformance)
app.command("version", help="Version, and the cryptography providers in use.")(version.version)


def main() -> None:
    """Run the command line; an error a person can meet is printed with its code and hint, and the exit status is 2."""
    try:
        app()
    except FedfabError as error:
        console = Console(stderr=True)
        console.print(f"[bold red]error[/] {error.code}: ", end="")
        console.print(error.message, markup=False, highlight=False)
        if error.hint:
            console.print("[bold]what to do:[/] ", end="")
            console.print(error.hint, markup=False, highlight=False)
        console.print(f"explained in docs/errors.md under {error.code}", style="dim")
        sys.exit(2)


if __name__ == "__main__":
    main()
