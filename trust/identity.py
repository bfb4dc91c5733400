"""Who someone is: the identity folder of a participant, and the trust store that says whose certificates hold.

An identity folder, as ``fedfab pki issue`` writes it and ``[trust] identity`` names it, holds for each suite
``<suite>.key`` (0600), ``<suite>.crt``, ``ca.<suite>.crt`` and ``crl.<suite>.pem``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from trust.errors import TrustError
from trust.keys import PrivateKey, PublicKey, SuiteName
from trust.suite import suite

Role = Literal["coordinator", "gateway", "operator", "end"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Peer:
    """A participant as its certificate names it: CN, OU and O of the subject."""

    name: str
    role: Role
    organisation: str
    serial: int
    not_after: datetime
    suite: SuiteName
    certificate: bytes = field(repr=False)  # PEM
    public: PublicKey = field(repr=False)


@dataclass(frozen=True)
class Identity:
    """Ourselves: our certificate, the private key that belongs to it, and the CA that issued it (PEM)."""

    peer: Peer
    private: PrivateKey
    ca: bytes = field(repr=False)

    @classmethod
    def load(cls, folder: Path, suite: SuiteName) -> Identity:
        """Read and check an identity folder: key private, certificate valid and ours. Raises TrustError naming the file."""
        private = PrivateKey.load(folder / f"{suite}.key", suite)
        certificate = folder / f"{suite}.crt"
        peer = TrustStore.load(folder, suite).verify(_read(certificate))
        if peer.public != private.public:
            raise TrustError(
                "FF-TRUST-021",
                f"{certificate}: expected the certificate of the key {suite}.key beside it, got one of another key",
                hint="copy key and certificate of one `fedfab pki issue` or `renew` together",
            )
        return cls(peer, private, _read(folder / f"ca.{suite}.crt"))
