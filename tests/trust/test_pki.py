"""The CA: chains that OpenSSL accepts too, and a folder that is never half written."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from cli.pki import app
from tests.conftest import need_program
from trust import pki
from trust.certificate import public_key
from trust.errors import TrustError
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName
from trust.suite import suite

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.init(tmp_path / "ca", pki.SUITES, "Works")
    return tmp_path / "ca"


def _request(name: str = "gateway-a") -> pki.Request:
    return pki.Request(name, "gateway", "北厂", ["edge.example", "10.0.0.7", "::1"])


@pytest.mark.clause("9.4.1.2e")
def test_an_issued_folder_is_complete(folder: Path, suite_name: SuiteName) -> None:
    path = pki.issue(folder, _request())
    peer = Identity.load(path, suite_name).peer
    assert (peer.name, peer.role, peer.organisation, peer.suite) == ("gateway-a", "gateway", "北厂", suite_name)
    assert path.joinpath(f"{suite_name}.key").stat().st_mode & 0o777 == 0o600
    names = x509.load_pem_x509_certificate(peer.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:fedfab:gateway:gateway-a"]
    assert names.value.get_values_for_type(x509.DNSName) == ["edge.example"]
    assert [str(a) for a in names.value.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]


@pytest.mark.clause("9.4.1.3b")
def test_openssl_accepts_our_chains(folder: Path, suite_name: SuiteName) -> None:
    """The command of the system's OpenSSL 3 checks the chain; it must be told the SM2 user id that OpenSSL 4 assumes."""
    openssl = need_program("openssl", "apt-get install openssl")
    path = pki.issue(folder, _request())
    command = [openssl, "verify", "-x509_strict", "-vfyopt", "distid:1234567812345678"]
    command = command if suite_name == "gm" else command[:3]
    files = ["-CAfile", path / f"ca.{suite_name}.crt", path / f"{suite_name}.crt"]
    assert "OK" in subprocess.run([*command, *files], check=True, capture_output=True, text=True).stdout
    text = ["x509", "-noout", "-text", "-in", path / f"{suite_name}.crt"]
    shown = subprocess.run([openssl, *text], check=True, capture_output=True, text=True).stdout
    assert ("SM2-with-SM3" if suite_name == "gm" else "ecdsa-with-SHA256") in shown


def test_openssl_accepts_our_revocation_lists(folder: Path) -> None:
    """P-256 only: the command of OpenSSL 3 has no way to be told the SM2 user id of a list; OpenSSL 4 checks those below."""
    openssl = need_program("openssl", "apt-get install openssl")
    path = pki.issue(folder, _request())
    check = [openssl, "verify", "-crl_check", "-CAfile", path / "ca.intl.crt", "-CRLfile", folder / "intl" / "crl.pem"]
    assert subprocess.run([*check, path / "intl.crt"], check=False, capture_output=True).returncode == 0
    pki.revoke(folder, "gateway-a")
    refused = subprocess.run([*check, path / "intl.crt"], check=False, capture_output=True, text=True)
    assert "certificate revoked" in refused.stderr


def test_the_signature_of_a_revocation_list_is_the_cas(folder: Path, suite_name: SuiteName) -> None:
    listed = x509.load_pem_x509_crl((folder / suite_name / "crl.pem").read_bytes())
    public = public_key((folder / suite_name / "ca.crt").read_bytes(), suite_name)
    suite(suite_name).verify(public, listed.tbs_certlist_bytes, listed.signature)


def test_renewal_keeps_key_and_names(folder: Path, suite_name: SuiteName) -> None:
    path = pki.issue(folder, _request(), days=10)
    before = Identity.load(path, suite_name)
    assert pki.due(folder, 9) == []
    assert pki.due(folder, 11) == ["gateway-a"]
    pki.renew(folder, "gateway-a", days=100)
    after = Identity.load(path, suite_name)
    assert after.private == before.private
    assert after.peer.serial != before.peer.serial
    assert after.peer.not_after > before.peer.not_after + timedelta(days=80)
    assert pki.due(folder, 11) == []
    old, new = (x509.load_pem_x509_certificate(i.peer.certificate).extensions for i in (before, after))
    san = x509.SubjectAlternativeName
    assert old.get_extension_for_class(san) == new.get_extension_for_class(san)


def test_renewal_elsewhere_needs_no_private_key(folder: Path, tmp_path: Path, suite_name: SuiteName) -> None:
    path = pki.issue(folder, _request(), tmp_path / "plant")
    new = pki.renew(folder, "gateway-a")
    assert not (new / f"{suite_name}.key").exists()
    for file in new.iterdir():
        shutil.copy(file, path)
    assert Identity.load(path, suite_name).peer.name == "gateway-a"


def test_revocation_covers_every_certificate_of_a_name(folder: Path, suite_name: SuiteName) -> None:
    path = pki.issue(folder, _request())
    first = Identity.load(path, suite_name).peer.certificate
    pki.renew(folder, "gateway-a")
    second = Identity.load(path, suite_name).peer.certificate
    trust = TrustStore.load(path, suite_name)
    assert trust.verify(first).name == trust.verify(second).name == "gateway-a"
    assert len(pki.revoke(folder, "gateway-a")) == 4
    shutil.copy(folder / suite_name / "crl.pem", path / f"crl.{suite_name}.pem")
    for certificate in (first, second):
        with pytest.raises(TrustError) as caught:
            trust.verify(certificate)
        assert caught.value.code == "FF-TRUST-024"
    pki.issue(folder, _request(), path)
    assert trust.verify((path / f"{suite_name}.crt").read_bytes()).name == "gateway-a"


def test_nothing_holds_longer_than_its_ca(folder: Path, suite_name: SuiteName) -> None:
    path = pki.issue(folder, _request(), days=100_000)
    ca = x509.load_pem_x509_certificate((path / f"ca.{suite_name}.crt").read_bytes())
    assert Identity.load(path, suite_name).peer.not_after == ca.not_valid_after_utc


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "../a", "x" * 64, "名"])
def test_a_malformed_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(TrustError) as caught:
        pki.issue(folder, _request(name))
    assert caught.value.code == "FF-PKI-002"


def test_what_exists_is_not_overwritten(folder: Path) -> None:
    path = pki.issue(folder, _request())
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    for code, attempt in (
        ("FF-PKI-001", lambda: pki.init(folder, ["gm"], "again")),
        ("FF-PKI-003", lambda: pki.issue(folder, _request())),
        ("FF-PKI-005", lambda: pki.renew(folder, "nobody")),
        ("FF-PKI-005", lambda: pki.revoke(folder, "nobody")),
        ("FF-PKI-004", lambda: pki.issue(folder / "nowhere", _request())),
    ):
        with pytest.raises(TrustError) as caught:
            attempt()
        assert caught.value.code == code
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before


def test_an_expired_name_may_be_issued_again(folder: Path) -> None:
    pki.issue(folder, _request(), days=1, now=NOW - timedelta(days=30))
    pki.issue(folder, _request())
    assert [entry.holds(NOW) for entry in pki.show(folder) if entry.suite == "gm"] == [False, True]


def test_a_crash_while_handing_out_leaves_nothing_unknown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was signed stands in the index, so it can be revoked."""
    real = pki.write_atomic

    def crash(path: Path, data: bytes, **options: int) -> None:
        if path.name == "gm.crt":
            raise OSError("power cut")
        real(path, data, **options)

    monkeypatch.setattr(pki, "write_atomic", crash)
    with pytest.raises(OSError, match="power cut"):
        pki.issue(folder, _request())
    monkeypatch.undo()
    index = json.loads((folder / "gm" / "index.json").read_text())
    assert [line["name"] for line in index["certificates"]] == ["gateway-a"]
    pki.revoke(folder, "gateway-a")
    Identity.load(pki.issue(folder, _request()), "gm")


def test_the_command_line(tmp_path: Path) -> None:
    ca, runner = str(tmp_path / "ca"), CliRunner()

    def run(*arguments: str) -> str:
        result = runner.invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    run("init", ca, "--organisation", "Works")
    assert "issued/cloud" in run("issue", ca, "cloud", "--role", "coordinator", "--host", "localhost")
    run("issue", ca, "edge", "--days", "10")
    assert "identity folder of edge" in run("renew", ca, "--due", "30")
    assert "nothing to renew" in run("renew", ca, "--due", "30")
    assert run("show", ca).count("edge") == 2
    assert "crl.gm.pem" in run("revoke", ca, "edge")
    assert "revoked" in run("show", ca)
    assert "crl.gm.pem" in run("crl", ca)
    assert Identity.load(tmp_path / "ca" / "issued" / "cloud", "gm").peer.role == "coordinator"
    assert not (tmp_path / "ca" / "intl").exists()


def test_help_is_quick_to_import() -> None:
    """The command line must not load OpenSSL to print its help."""
    import sys

    code = "import sys, cli.pki; sys.exit('cryptography' in sys.modules or 'trust' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
