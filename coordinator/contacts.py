"""Who is enrolled: every gateway that has called with a certificate of our CA, and when it last did."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from common.validation import Finding, nearest
from coordinator import tables
from coordinator.db import rows
from coordinator.errors import InvalidError
from coordinator.resources import Participant, now_ms
from federation.database import Database
from trust.identity import Peer

_WRITE_EVERY_MS = 30_000
"""A poll is no reason to write to the disk: between writes the latest contact is in memory."""


class Contacts:
    """The contacts in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._latest: dict[str, int] = {}
        self._written: dict[str, tuple[Peer, int]] = {}

    async def seen(self, peer: Peer) -> None:
        """Note a call of ``peer``; the first one enrols."""
        now = self._latest[peer.name] = now_ms()
        known, written = self._written.get(peer.name, (None, 0))
        if known != peer or now - written > _WRITE_EVERY_MS:
            self._written[peer.name] = (peer, now)
            await self._database.write(lambda connection: _write(connection, peer, now))

    async def all(self) -> list[Participant]:
        """Everyone, by name."""
        found = await rows(self._database, select(tables.contacts).order_by(tables.contacts.c.name))
        return [
            Participant.model_validate({**row, "last_seen": max(row["last_seen"], self._latest.get(row["name"], 0))})
            for row in found
        ]

    async def members(self, wanted: Sequence[str]) -> list[str]:
        """The gateways a task goes to: those ``wanted``, or all where none is named. Raises InvalidError naming each unknown one."""
        enrolled = [participant.name for participant in await self.all() if participant.role == "gateway"]
        expected = f"one of {', '.join(enrolled)}" if enrolled else "a gateway that has called before; none has"
        unknown = [
            Finding(("members", i), f'gateway "{name}" is not enrolled', expected, f'"{name}"', nearest(name, enrolled))
            for i, name in enumerate(wanted)
            if name not in enrolled
        ]
        if unknown or not enrolled:
            raise InvalidError(unknown or [Finding(("members",), "no gateway is enrolled yet", expected, "nothing")])
        return list(dict.fromkeys(wanted)) or enrolled


def _write(connection: Connection, peer: Peer, now: int) -> None:
    table = tables.contacts
    values = {
        "suite": peer.suite,
        "role": peer.role,
        "organisation": peer.organisation,
        "not_after": int(peer.not_after.timestamp() * 1000),
        "last_seen": now,
    }
    if not connection.execute(update(table).where(table.c.name == peer.name).values(values)).rowcount:
        connection.execute(insert(table).values(name=peer.name, first_seen=now, **values))
