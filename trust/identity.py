"""Who someone is: the identity folder of a participant, and the trust store that says whose certificates hold.

An identity folder, as ``fedfab pki issue`` writes it and ``[trust] identity`` names it, holds for each suite
``<suite>.key`` (0600), ``<suite>.crt``, ``ca.<suite>.crt`` and ``crl.<suite>.pem``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import crypto

from trust.certificate import public_key
from trust.errors import TrustError
from trust.keys import PrivateKey, PublicKey, SuiteName

Role = Literal["coordinator", "gateway", "operator", "end", "proxy"]
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
    folder: Path

    @classmethod
    def load(cls, folder: Path, suite: SuiteName) -> Identity:
        """Read and check an identity folder: key private, certificate valid and its own. Raises TrustError naming the file."""
        private = PrivateKey.load(folder / f"{suite}.key", suite)
        certificate = folder / f"{suite}.crt"
        peer = TrustStore.load(folder, suite).verify(_read(certificate))
        if peer.public != private.public:
            raise TrustError(
                "FF-TRUST-021",
                f"{certificate}: expected the certificate of {suite}.key beside it, got one of another key",
                hint="copy key and certificate of one `fedfab pki issue` or `renew` together",
            )
        return cls(peer, private, _read(folder / f"ca.{suite}.crt"), folder)


class TrustStore:
    """Whose certificates hold: issued by our CA, within their time, not revoked, naming a role.

    The CA and the revocation list are read again when their files change, so a revoked participant is refused without a restart.
    """

    _REMEMBER_S = 60.0  # a certificate seen less than this ago is not verified again while the files are the same

    def __init__(self, folder: Path, suite: SuiteName) -> None:
        self.suite: SuiteName = suite
        self.ca, self.crl = folder / f"ca.{suite}.crt", folder / f"crl.{suite}.pem"
        self._stamp = _stamp(self.ca, self.crl)
        self._store = self._open()
        self._seen: dict[bytes, tuple[float, Peer]] = {}

    @classmethod
    def load(cls, folder: Path, suite: SuiteName) -> TrustStore:
        """The store of an identity folder. Raises TrustError where a file is missing or broken."""
        return cls(folder, suite)

    def verify(self, certificate: bytes) -> Peer:
        """Who a certificate (PEM) stands for. Raises TrustError saying why it does not hold."""
        store = self._current()
        seen = self._seen.get(certificate)
        if seen is not None and time.monotonic() - seen[0] < self._REMEMBER_S:
            return seen[1]
        try:
            parsed = crypto.load_certificate(crypto.FILETYPE_PEM, certificate)
            peer = _peer(parsed.to_cryptography(), certificate, self.suite)
        except (crypto.Error, ValueError) as error:
            raise _unreadable("a certificate", error) from error
        try:
            crypto.X509StoreContext(store, parsed).verify_certificate()
        except crypto.X509StoreContextError as error:
            # pyOpenSSL leaves the reasons in OpenSSL's queue, where the next call of this thread would take them for its own
            crypto._lib.ERR_clear_error()  # type: ignore[attr-defined]
            raise self.refusal(error.errors[0], peer.name) from error
        if len(self._seen) > 4096:
            self._seen.clear()
        self._seen[certificate] = (time.monotonic(), peer)
        return peer

    def refusal(self, code: int, name: str) -> TrustError:
        """OpenSSL's X509_V_ERR code as an error that says what to do about the certificate of ``name``."""
        who = f"the {self.suite} certificate of {name!r}"
        renew = "renew it with `fedfab pki renew` and copy the new files to its identity folder"
        match code:
            case 9:
                return TrustError(
                    "FF-TRUST-023",
                    f"{who} is not valid yet: this machine's clock says {_now()}, is it right?",
                    hint="set the clock (timedatectl); if it is right, that of the machine that issued the certificate was wrong",
                )
            case 10:
                return TrustError(
                    "FF-TRUST-022",
                    f"{who} has expired: this machine's clock says {_now()}, is it right?",
                    hint=renew,
                )
            case 23:
                return TrustError(
                    "FF-TRUST-024",
                    f"{who} has been revoked",
                    hint="issue a new one with `fedfab pki issue` if the participant may come back",
                )
            case 3 | 8 | 11 | 12:
                return TrustError(
                    "FF-TRUST-025",
                    f"{who} cannot be checked: the revocation list {self.crl} is out of date or not of this CA",
                    hint="make a fresh one with `fedfab pki crl` and copy it into the identity folder",
                )
            case 2 | 7 | 18 | 19 | 20 | 21:
                return TrustError(
                    "FF-TRUST-026",
                    f"{who} was not issued by our CA ({self.ca})",
                    hint="all participants need certificates of one CA; compare with `fedfab pki show`",
                )
        return TrustError("FF-TRUST-027", f"{who} does not hold (X509_V_ERR {code})", hint=renew)

    def _current(self) -> crypto.X509Store:
        """CA and revocation list as they are on disk now."""
        stamp = _stamp(self.ca, self.crl)
        if stamp != self._stamp:
            self._store, self._stamp = self._open(), stamp
            self._seen.clear()
        return self._store

    def _open(self) -> crypto.X509Store:
        store = crypto.X509Store()
        try:
            store.add_cert(crypto.load_certificate(crypto.FILETYPE_PEM, _read(self.ca)))
            if self.crl.exists():
                store.add_crl(x509.load_pem_x509_crl(_read(self.crl)))
                store.set_flags(crypto.X509StoreFlags.CRL_CHECK)
        except (crypto.Error, ValueError) as error:
            raise _unreadable(f"{self.ca} or {self.crl}", error) from error
        return store


def _peer(certificate: x509.Certificate, pem: bytes, suite: SuiteName) -> Peer:
    subject = {attribute.oid: str(attribute.value) for attribute in certificate.subject}
    name, role = subject.get(NameOID.COMMON_NAME, ""), subject.get(NameOID.ORGANIZATIONAL_UNIT_NAME, "")
    for known in ROLES:
        if role == known and name:
            return Peer(
                name,
                known,
                subject.get(NameOID.ORGANIZATION_NAME, ""),
                certificate.serial_number,
                certificate.not_valid_after_utc,
                suite,
                pem,
                public_key(pem, suite),
            )
    raise TrustError(
        "FF-TRUST-028",
        f"a certificate names no participant: expected CN and OU one of {', '.join(ROLES)}, got CN {name!r}, OU {role!r}",
        hint="take certificates from `fedfab pki issue`",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(" ", "seconds")


def _stamp(*paths: Path) -> tuple[tuple[int, int, int] | None, ...]:
    def one(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    return tuple(map(one, paths))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(
            "FF-TRUST-020",
            f"cannot read {path}: {error.strerror}",
            hint="an identity folder comes from `fedfab pki issue`; check `[trust] identity` and `suite`",
        ) from error


def _unreadable(what: str, error: Exception) -> TrustError:
    return TrustError(
        "FF-TRUST-029",
        f"{what} cannot be read as X.509 in PEM: {error}",
        hint="copy the file again from the CA's folder",
    )
