"""Whose certificates hold, and what a plant engineer is told when one does not."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM

from trust import pki
from trust.certificate import Draft, Issuer, Subject, participant
from trust.errors import TrustError
from trust.identity import Identity, TrustStore
from trust.keys import PrivateKey, SuiteName
from trust.suite import suite

NOW = datetime.now(UTC).replace(microsecond=0)


def _copy(ca: Path, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(ca / "issued" / name, tmp_path / name))


def _code(folder: Path, name: SuiteName) -> str:
    with pytest.raises(TrustError) as caught:
        Identity.load(folder, name)
    assert caught.value.hint
    return caught.value.code


def test_peers_verify_each_other(ca: Path, trust: TrustStore, suite_name: SuiteName) -> None:
    other = (ca / "issued" / "gateway-b" / f"{suite_name}.crt").read_bytes()
    assert trust.verify(other) == trust.verify(other)
    assert trust.verify(other).organisation == "北厂"


def test_missing_files_are_named(ca: Path, tmp_path: Path, suite_name: SuiteName) -> None:
    for file in (f"{suite_name}.crt", f"ca.{suite_name}.crt"):
        folder = _copy(ca, "cloud", tmp_path / file)
        (folder / file).unlink()
        with pytest.raises(TrustError, match=file) as caught:
            Identity.load(folder, suite_name)
        assert caught.value.code == "FF-TRUST-020"


def test_broken_files_are_named(ca: Path, tmp_path: Path, suite_name: SuiteName) -> None:
    for file in (f"{suite_name}.crt", f"ca.{suite_name}.crt", f"crl.{suite_name}.pem"):
        folder = _copy(ca, "cloud", tmp_path / file)
        (folder / file).write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        assert _code(folder, suite_name) == "FF-TRUST-029"


def test_key_and_certificate_belong_together(ca: Path, tmp_path: Path, suite_name: SuiteName) -> None:
    folder = _copy(ca, "cloud", tmp_path)
    shutil.copy(ca / "issued" / "gateway-a" / f"{suite_name}.key", folder)
    assert _code(folder, suite_name) == "FF-TRUST-021"


def test_suites_are_not_mixed_up(ca: Path, tmp_path: Path) -> None:
    folder = _copy(ca, "cloud", tmp_path)
    shutil.copy(folder / "intl.crt", folder / "gm.crt")
    assert _code(folder, "gm") == "FF-TRUST-001"


def test_another_ca_is_refused(ca: Path, tmp_path: Path, trust: TrustStore, suite_name: SuiteName) -> None:
    """Even one that bears the same name as ours."""
    pki.init(tmp_path / "other", [suite_name], "Test Works")
    stranger = pki.issue(tmp_path / "other", pki.Request("gateway-a", "gateway", "Werk Süd"))
    with pytest.raises(TrustError) as caught:
        trust.verify((stranger / f"{suite_name}.crt").read_bytes())
    assert caught.value.code == "FF-TRUST-026"


def test_a_participant_cannot_issue(ca: Path, trust: TrustStore, suite_name: SuiteName) -> None:
    """A gateway that plays CA: its certificate is no CA's."""
    gateway = ca / "issued" / "gateway-a"
    issuer = Issuer(
        PrivateKey.load(gateway / f"{suite_name}.key", suite_name), (gateway / f"{suite_name}.crt").read_bytes()
    )
    with pytest.raises(TrustError) as caught:
        trust.verify(_certificate(issuer, suite_name))
    assert caught.value.code == "FF-TRUST-026"


def test_times_and_roles_are_checked(ca: Path, trust: TrustStore, suite_name: SuiteName) -> None:
    issuer = Issuer(PrivateKey.load(ca / suite_name / "ca.key", suite_name), (ca / suite_name / "ca.crt").read_bytes())
    day = timedelta(days=1)
    for expected, certificate in (
        ("FF-TRUST-022", _certificate(issuer, suite_name, NOW - 2 * day, NOW - day)),
        ("FF-TRUST-023", _certificate(issuer, suite_name, NOW + day, NOW + 2 * day)),
        ("FF-TRUST-028", _certificate(issuer, suite_name, role="emperor")),
        ("FF-TRUST-028", (ca / suite_name / "ca.crt").read_bytes()),
    ):
        with pytest.raises(TrustError) as caught:
            trust.verify(certificate)
        assert caught.value.code == expected
    assert trust.verify(_certificate(issuer, suite_name)).name == "someone"


def test_a_changed_certificate_is_refused(ca: Path, trust: TrustStore, suite_name: SuiteName) -> None:
    """And what OpenSSL noted about the bad signature does not turn up in the next call of the thread, in whatever library."""
    pem = (ca / "issued" / "gateway-a" / f"{suite_name}.crt").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem).replace(b"gateway-a", b"gateway-z")
    with pytest.raises(TrustError) as caught:
        trust.verify(ssl.DER_cert_to_PEM_cert(der).encode())
    assert caught.value.code == "FF-TRUST-026"
    with pytest.raises(InvalidTag):
        Cipher(SM4(bytes(16)), GCM(bytes(12), bytes(16))).decryptor().finalize()


def test_an_old_or_foreign_revocation_list_is_told(tmp_path: Path, suite_name: SuiteName) -> None:
    old, other = tmp_path / "old", tmp_path / "other"
    pki.init(old, [suite_name], "Works", now=NOW - timedelta(days=400))
    pki.init(other, [suite_name], "Works")
    folder = pki.issue(old, pki.Request("a", "gateway", "Works"))
    assert Identity.load(folder, suite_name).peer.name == "a"
    pki.refresh(old, now=NOW - timedelta(days=380))
    for stale in (old, other):
        shutil.copy(stale / suite_name / "crl.pem", folder / f"crl.{suite_name}.pem")
        assert _code(folder, suite_name) == "FF-TRUST-025"
    pki.refresh(old)
    shutil.copy(old / suite_name / "crl.pem", folder / f"crl.{suite_name}.pem")
    assert Identity.load(folder, suite_name).peer.name == "a"


def _certificate(
    issuer: Issuer,
    name: SuiteName,
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=1),
    role: str = "gateway",
) -> bytes:
    from cryptography import x509

    draft = Draft(Subject("someone", role, "Works"), suite(name).generate_key().public, 4711, start, end)
    return participant(issuer, draft, x509.SubjectAlternativeName([x509.DNSName("localhost")]))
