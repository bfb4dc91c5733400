"""fedfab pki: a small certificate authority for the participants of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Certificates of the participants: SM2 (gm), P-256 (intl) or both.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The CA's folder. Keep it off the plant network.")]
Out = Annotated[Path | None, typer.Option(help="Identity folder to write.", show_default="DIR/issued/NAME")]
Days = Annotated[int, typer.Option(min=1, help="Days the certificate holds.")]


@app.command()
def init(
    folder: Folder,
    suite: Annotated[
        Literal["gm", "intl", "both"], typer.Option(help="National algorithms, international ones, or both.")
    ] = "gm",
    organisation: Annotated[str, typer.Option(help="Who runs this CA.")] = "fedfab",
) -> None:
    """Create a certificate authority in DIR."""
    from trust import pki

    pki.init(folder, pki.SUITES if suite == "both" else [suite], organisation)
    Console().print(
        f"CA created in {folder}. Who reads its ca.key can be anyone: keep it safe.", highlight=False, soft_wrap=True
    )


@app.command()
def issue(
    folder: Folder,
    name: Annotated[str, typer.Argument(help="The participant's name, its id in the federation.")],
    *,
    role: Annotated[
        Literal["coordinator", "gateway", "operator", "end"], typer.Option(help="What it may do.")
    ] = "gateway",
    organisation: Annotated[str, typer.Option(help="Whose it is.")] = "fedfab",
    host: Annotated[list[str] | None, typer.Option(help="DNS name or IP address it is dialled by; repeat.")] = None,
    out: Out = None,
    days: Days = 397,
) -> None:
    """Make key and certificate for a participant: a complete identity folder."""
    from trust import pki

    written = pki.issue(folder, pki.Request(name, role, organisation, host or []), out, days=days)
    Console().print(
        f'{written}: copy it to the participant and name it in \\[trust] identity = "…"',
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def renew(
    folder: Folder,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Participants to renew.")] = None,
    due: Annotated[int | None, typer.Option(help="Renew all that expire within so many days.")] = None,
    out: Out = None,
    days: Days = 397,
) -> None:
    """New certificates for the keys that participants have."""
    from trust import pki

    chosen = list(names or []) + (pki.due(folder, due) if due is not None else [])
    if out is not None and len(chosen) > 1:
        raise typer.BadParameter("--out takes one participant")
    for name in chosen:
        written = pki.renew(folder, name, out, days=days)
        Console().print(
            f"{written}: copy the .crt and .pem files into the identity folder of {name}",
            highlight=False,
            soft_wrap=True,
        )
    if not chosen:
        Console().print("nothing to renew")


@app.command()
def revoke(folder: Folder, name: Annotated[str, typer.Argument(help="The participant to shut out.")]) -> None:
    """Revoke all certificates of a participant and make fresh revocation lists."""
    from trust import pki

    for entry in pki.revoke(folder, name):
        Console().print(f"revoked {entry.suite} {entry.serial} of {entry.name}", highlight=False, soft_wrap=True)
    _say_where(folder)


@app.command()
def crl(folder: Folder) -> None:
    """Make fresh revocation lists; they hold for a year."""
    from trust import pki

    pki.refresh(folder)
    _say_where(folder)


@app.command()
def show(folder: Folder) -> None:
    """List all certificates that were issued."""
    from datetime import UTC, datetime

    from trust import pki

    now, table = datetime.now(UTC), Table("suite", "name", "role", "organisation", "state", "until", "serial")
    for entry in pki.show(folder):
        left = (entry.expires - now).days
        state = "revoked" if entry.revoked else "expired" if left < 0 else "renew soon" if left < 30 else "valid"
        day = entry.expires.date().isoformat()
        table.add_row(entry.suite, entry.name, entry.role, entry.organisation, state, day, entry.serial)
    Console().print(table)


def _say_where(folder: Path) -> None:
    from trust import pki

    for name in pki.SUITES:
        if (folder / name / "crl.pem").exists():
            text = f"copy {folder / name / 'crl.pem'} to crl.{name}.pem in every identity folder; no restart is needed"
            Console().print(text, highlight=False, soft_wrap=True)
