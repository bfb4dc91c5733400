"""How a command reaches the coordinator: the options all of them share, and one call around a client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from coordinator.client import Client

T = TypeVar("T")


class Suite(StrEnum):
    """The two suites of cryptography."""

    GM = "gm"
    INTL = "intl"


Url = Annotated[
    str, typer.Option("--coordinator", envvar="FEDFAB_COORDINATOR", help="Where it listens: https://host:port.")
]
Identity = Annotated[
    Path, typer.Option(envvar="FEDFAB_IDENTITY", help="Your identity folder, with a certificate of role operator.")
]
SuiteOption = Annotated[Suite, typer.Option("--suite", envvar="FEDFAB_SUITE", help="Suite of that address.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

URL = "https://127.0.0.1:8443"
IDENTITY = Path("identity")


@dataclass(frozen=True)
class Connection:
    """Where the coordinator is and who asks."""

    url: str
    identity: Path
    suite: Suite

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """What ``work`` returns, given a connected client."""
        from coordinator.client import Client
        from trust.identity import Identity, TrustStore

        async def whole() -> T:
            identity = Identity.load(self.identity, self.suite.value)
            async with Client(self.url, identity, TrustStore.load(self.identity, self.suite.value)) as client:
                return await work(client)

        return asyncio.run(whole())


def print_json(found: BaseModel | Sequence[BaseModel]) -> None:
    """One resource, or several as a list."""
    import json

    data = (
        [one.model_dump(mode="json") for one in found] if isinstance(found, Sequence) else found.model_dump(mode="json")
    )
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))
