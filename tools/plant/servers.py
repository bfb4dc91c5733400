"""What every server of the plant offers to the machines behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tools.plant.faults import Reading


class Channel(Protocol):
    """One machine's place on a server."""

    async def ready(self) -> None:
        """Return once a reader has come, where the protocol lets a server see that."""

    async def put(self, reading: Reading | None) -> None:
        """Show this cycle; None: the machine cannot be heard. Waits while a lossless channel has no room."""


class Server(Protocol):
    """One protocol. Channels are added before `start`."""

    def add(self, name: str, fields: Sequence[str], units: Sequence[str], *, lossless: bool) -> Channel:
        """A place for one machine. ``lossless``: each of its rows can be read, however slow the reader."""
        ...

    async def start(self) -> None:
        """Listen. Raises ToolError FF-PLANT-002 where that cannot be done."""

    async def stop(self) -> None:
        """Close. Safe twice and after a failed start."""

    async def serve(self) -> None:
        """Whatever the server does beside answering; runs until cancelled."""
