"""Who takes part: names and certificates, as they were shown when a session opened. Deny by default: who is not here gets nothing."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import delete, select

from federation import tables
from federation.database import Database
from federation.errors import FederationError
from trust.identity import Peer, TrustStore
from trust.keys import SuiteName


class Participants:
    """Certificates by name, kept over restarts; every one is checked again by the trust store when it is used."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._certificates: dict[str, tuple[SuiteName, bytes]] = {}
        with database.engine.connect() as connection:
            for row in connection.execute(select(tables.participants)):
                self._certificates[row.name] = (row.suite, row.certificate.encode())

    def __contains__(self, name: object) -> bool:
        return name in self._certificates

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._certificates))

    def suite(self, name: str) -> SuiteName:
        """The suite that ``name`` used last. Raises FederationError FF-FED-010 for a stranger."""
        return self._known(name)[0]

    def peer(self, name: str, trust: TrustStore) -> Peer:
        """The participant as ``trust`` sees it now. Raises FederationError FF-FED-010 for a stranger, TrustError."""
        return trust.verify(self._known(name)[1])

    def certificates(self, suite: str) -> dict[str, bytes]:
        """Certificates (PEM) of all in this suite, by name."""
        return {name: certificate for name, (used, certificate) in self._certificates.items() if used == suite}

    async def add(self, peer: Peer) -> None:
        """Remember a participant, or its new certificate."""
        entry = (peer.suite, peer.certificate)
        if self._certificates.get(peer.name) == entry:
            return
        row: dict[str, object] = {"name": peer.name, "suite": peer.suite, "certificate": peer.certificate.decode()}
        await self._database.write(lambda connection: tables.upsert(connection, tables.participants, row))
        self._certificates[peer.name] = entry

    async def forget(self, name: str) -> None:
        """Take a participant out: nobody can write to it any more, until it opens a session again."""
        self._certificates.pop(name, None)
        await self._database.write(
            lambda connection: connection.execute(delete(tables.participants).where(tables.participants.c.name == name))
        )

    def _known(self, name: str) -> tuple[SuiteName, bytes]:
        if name not in self._certificates:
            raise FederationError(
                "FF-FED-010",
                f'there is no participant "{name}"; known are: {", ".join(self) or "none"}',
                hint="it becomes known when it first connects; check its name and that its gateway runs",
            )
        return self._certificates[name]
