"""A small certificate authority in a folder: issue, renew, revoke, in one suite or both.

    DIR/<suite>/ca.key         0600; who has it can be anyone: keep DIR on a machine of its own, off the plant network
    DIR/<suite>/ca.crt, crl.pem
    DIR/<suite>/index.json     every certificate ever issued, by serial
    DIR/<suite>/issued/        their files, <serial>.crt
    DIR/issued/<name>/         identity folders, ready to be copied to the participant and named in `[trust] identity`

Every change is written whole or not at all, and a lock keeps two commands on one folder apart. What is handed out stands in the
index before, so nothing valid exists that could not be revoked.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from cryptography import x509

from common.files import write_atomic
from trust.certificate import Draft, Issuer, Subject, authority, participant, public_key, revocation_list
from trust.errors import TrustError
from trust.identity import ROLES, Role
from trust.keys import PrivateKey, PublicKey, SuiteName
from trust.suite import suite

SUITES: tuple[SuiteName, ...] = get_args(SuiteName)
CA_DAYS, CERTIFICATE_DAYS, CRL_DAYS = 3650, 397, 365
_SKEW = timedelta(minutes=5)  # certificates hold a little before they are made, for clocks that run behind
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Request:
    """For whom a certificate is: name (also its id in the federation), role, organisation, DNS names and IP addresses."""

    name: str
    role: Role
    organisation: str
    hosts: Sequence[str] = ()


@dataclass(frozen=True)
class Issued:
    """A line of the index. Times in ISO 8601, UTC; ``revoked`` is empty while the certificate holds."""

    suite: SuiteName
    serial: str  # hexadecimal
    name: str
    role: str
    organisation: str
    not_after: str
    revoked: str = ""

    def holds(self, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return not self.revoked and now < self.expires

    @property
    def expires(self) -> datetime:
        """End of validity."""
        return datetime.fromisoformat(self.not_after)


def init(folder: Path, suites: Sequence[SuiteName], organisation: str, *, now: datetime | None = None) -> None:
    """Create a CA for each of ``suites`` in ``folder``. Raises TrustError where there is one already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder):
        for name in suites:
            if (folder / name).exists():
                raise TrustError(
                    "FF-PKI-001",
                    f"expected no CA yet in {folder / name}",
                    hint="a new CA would make every certificate worthless; take another folder",
                )
        for name in suites:
            _Authority.create(folder / name, name, organisation, _now(now))


def issue(
    folder: Path,
    request: Request,
    out: Path | None = None,
    *,
    days: int = CERTIFICATE_DAYS,
    now: datetime | None = None,
) -> Path:
    """A fresh key and certificate in every suite of the CA; returns the identity folder, ``DIR/issued/<name>`` by default.

    Raises TrustError where the name is malformed, or taken by a certificate that still holds.
    """
    _check(request)
    target = out or folder / "issued" / request.name
    with _locked(folder):
        authorities = _authorities(folder)
        for ca in authorities:
            if ca.holding(request.name, _now(now)):
                raise TrustError(
                    "FF-PKI-003",
                    f"{request.name!r} has a {ca.suite} certificate that still holds",
                    hint="renew it, or revoke it first, with `fedfab pki renew` or `revoke`",
                )
        for ca in authorities:
            private = suite(ca.suite).generate_key()
            subject = Subject(request.name, request.role, request.organisation)
            certificate = ca.certify(subject, private.public, _names(request), days, _now(now))
            private.save(target / f"{ca.suite}.key")
            ca.hand_out(certificate, target, _now(now))
    return target


def renew(
    folder: Path, name: str, out: Path | None = None, *, days: int = CERTIFICATE_DAYS, now: datetime | None = None
) -> Path:
    """New certificates for the keys that ``name`` has, with the same names in them; the keys never leave the participant.

    Sealed messages under way stay readable, and the old certificates hold until they expire or are revoked.
    """
    target = out or folder / "issued" / name
    with _locked(folder):
        for ca in _authorities(folder):
            holding = ca.holding(name, _now(now))
            if not holding:
                raise _unknown(name, ca.suite)
            ca.hand_out(ca.certify_again(holding[-1], days, _now(now)), target, _now(now))
    return target


def revoke(folder: Path, name: str, *, now: datetime | None = None) -> list[Issued]:
    """Revoke every certificate of ``name`` that still holds, and make fresh revocation lists; returns what was revoked."""
    with _locked(folder):
        authorities = _authorities(folder)
        revoked = [entry for ca in authorities for entry in ca.revoke(name, _now(now))]
        if not revoked:
            raise _unknown(name, "/".join(ca.suite for ca in authorities))
    return revoked


def refresh(folder: Path, *, now: datetime | None = None) -> list[Path]:
    """Fresh revocation lists, to be copied into the identity folders before the old ones are a year old."""
    with _locked(folder):
        return [ca.write_crl(_now(now)) for ca in _authorities(folder)]


def due(folder: Path, days: int, *, now: datetime | None = None) -> list[str]:
    """Names of those whose last certificate in a suite expires within ``days`` days."""
    last = {(entry.suite, entry.name): entry for entry in show(folder) if entry.holds(_now(now))}
    soon = _now(now) + timedelta(days=days)
    return sorted({entry.name for entry in last.values() if entry.expires < soon})


def show(folder: Path) -> list[Issued]:
    """Every certificate ever issued, oldest first, suite by suite."""
    return [entry for ca in _authorities(folder) for entry in ca.entries]


class _Authority:
    """The CA of one suite."""

    def __init__(self, folder: Path, suite: SuiteName) -> None:
        self.folder, self.suite = folder, suite
        self._issuer = Issuer(PrivateKey.load(folder / "ca.key", suite), (folder / "ca.crt").read_bytes())
        index = json.loads((folder / "index.json").read_text())
        self._crl_number: int = index["crl_number"]
        self.entries = [Issued(**line) for line in index["certificates"]]

    @classmethod
    def create(cls, folder: Path, suite_name: SuiteName, organisation: str, now: datetime) -> None:
        private = suite(suite_name).generate_key()
        subject = Subject(f"fedfab CA {suite_name}", "ca", organisation)
        serial = x509.random_serial_number()
        draft = Draft(subject, private.public, serial, now - _SKEW, now + timedelta(days=CA_DAYS))
        private.save(folder / "ca.key")
        write_atomic(folder / "ca.crt", authority(private, draft))
        write_atomic(folder / "index.json", b'{"crl_number": 0, "certificates": []}')
        cls(folder, suite_name).write_crl(now)

    def holding(self, name: str, now: datetime) -> list[Issued]:
        return [entry for entry in self.entries if entry.name == name and entry.holds(now)]

    def certify(
        self, subject: Subject, public: PublicKey, names: x509.SubjectAlternativeName, days: int, now: datetime
    ) -> bytes:
        ca_end = x509.load_pem_x509_certificate(self._issuer.certificate).not_valid_after_utc
        end = min(now + timedelta(days=days), ca_end)
        draft = Draft(subject, public, x509.random_serial_number(), min(now, end) - _SKEW, end)
        certificate, serial = participant(self._issuer, draft, names), f"{draft.serial:x}"
        write_atomic(self.folder / "issued" / f"{serial}.crt", certificate)
        entry = Issued(self.suite, serial, subject.name, subject.role, subject.organisation, end.isoformat())
        self.entries.append(entry)
        self._save()
        return certificate

    def certify_again(self, entry: Issued, days: int, now: datetime) -> bytes:
        before = (self.folder / "issued" / f"{entry.serial}.crt").read_bytes()
        names = x509.load_pem_x509_certificate(before).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        subject = Subject(entry.name, entry.role, entry.organisation)
        return self.certify(subject, public_key(before, self.suite), names.value, days, now)

    def revoke(self, name: str, now: datetime) -> list[Issued]:
        holding = self.holding(name, now)
        revoked = {entry.serial: replace(entry, revoked=now.isoformat()) for entry in holding}
        self.entries = [revoked.get(entry.serial, entry) for entry in self.entries]
        self.write_crl(now)
        return list(revoked.values())

    def write_crl(self, now: datetime) -> Path:
        self._crl_number += 1
        self._save()
        gone = [(int(e.serial, 16), datetime.fromisoformat(e.revoked)) for e in self.entries if e.revoked]
        until = now + timedelta(days=CRL_DAYS)
        path = self.folder / "crl.pem"
        write_atomic(path, revocation_list(self._issuer, gone, self._crl_number, now - _SKEW, until))
        return path

    def hand_out(self, certificate: bytes, target: Path, now: datetime) -> None:
        """The certificate last: a folder that has it is complete."""
        write_atomic(target / f"ca.{self.suite}.crt", self._issuer.certificate)
        write_atomic(target / f"crl.{self.suite}.pem", self.write_crl(now).read_bytes())
        write_atomic(target / f"{self.suite}.crt", certificate)

    def _save(self) -> None:
        lines = [asdict(entry) for entry in self.entries]
        index = {"crl_number": self._crl_number, "certificates": lines}
        write_atomic(self.folder / "index.json", json.dumps(index, indent=1, ensure_ascii=False).encode())


def _authorities(folder: Path) -> list[_Authority]:
    found = [_Authority(folder / name, name) for name in SUITES if (folder / name / "index.json").exists()]
    if not found:
        raise TrustError(
            "FF-PKI-004", f"expected a CA in {folder}, found none", hint="create one with `fedfab pki init DIR`"
        )
    return found


def _check(request: Request) -> None:
    if not _NAME.fullmatch(request.name) or request.role not in ROLES:
        raise TrustError(
            "FF-PKI-002",
            f"expected a name of letters, digits, . _ - (at most 63) and a role of {', '.join(ROLES)}; "
            f"got {request.name!r}, {request.role!r}",
            hint="the name is the participant's id in the federation; the organisation may be any text",
        )


def _names(request: Request) -> x509.SubjectAlternativeName:
    """Hosts to dial, and who it is: urn:fedfab:<role>:<name>."""
    who = x509.UniformResourceIdentifier(f"urn:fedfab:{request.role}:{request.name}")
    return x509.SubjectAlternativeName([*map(_host, request.hosts), who])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _unknown(name: str, suites: str) -> TrustError:
    return TrustError(
        "FF-PKI-005",
        f"{name!r} has no {suites} certificate that holds",
        hint="`fedfab pki show DIR` lists them; an expired or revoked participant gets a new one with `issue`",
    )


def _now(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if not folder.is_dir():
        raise TrustError(
            "FF-PKI-004", f"expected a CA in {folder}, found none", hint="create one with `fedfab pki init DIR`"
        )
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
