"""Key files: private, in the common form, refused with a reason otherwise."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import need_program
from trust.errors import TrustError
from trust.keys import PrivateKey, SuiteName
from trust.suite import suite


@pytest.mark.clause("9.4.1.2e")
def test_a_key_file_is_for_its_owner_only(tmp_path: Path, suite_name: SuiteName) -> None:
    private, path = suite(suite_name).generate_key(), tmp_path / "a.key"
    private.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert PrivateKey.load(path, suite_name) == private
    path.chmod(0o640)
    with pytest.raises(TrustError, match="expected mode 0600, got 0640") as caught:
        PrivateKey.load(path, suite_name)
    assert caught.value.code == "FF-TRUST-004"
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "FF-TRUST-002"),
        (b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "FF-TRUST-002"),
        (b"-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n", "FF-TRUST-002"),
        (b"-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\n", "FF-TRUST-002"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, suite_name: SuiteName, text: bytes, code: str) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(TrustError) as caught:
        PrivateKey.load(path, suite_name)
    assert caught.value.code == code


def test_a_missing_key_is_named(tmp_path: Path, suite_name: SuiteName) -> None:
    with pytest.raises(TrustError, match=str(tmp_path / "a.key")) as caught:
        PrivateKey.load(tmp_path / "a.key", suite_name)
    assert caught.value.code == "FF-TRUST-003"


def test_a_key_of_the_other_suite_is_refused(tmp_path: Path) -> None:
    suite("intl").generate_key().save(tmp_path / "a.key")
    with pytest.raises(TrustError, match="SM2") as caught:
        PrivateKey.load(tmp_path / "a.key", "gm")
    assert caught.value.code == "FF-TRUST-002"


@pytest.mark.parametrize(("name", "curve"), [("gm", "SM2"), ("intl", "P-256")])
def test_openssl_reads_our_keys_and_we_read_its(tmp_path: Path, name: SuiteName, curve: str) -> None:
    openssl = need_program("openssl", "apt-get install openssl")
    theirs, ours = tmp_path / "theirs.key", tmp_path / "ours.key"
    command = [openssl, "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-out", theirs]
    subprocess.run(command, check=True, capture_output=True)
    theirs.chmod(0o600)
    private = PrivateKey.load(theirs, name)
    suite(name).verify(private.public, b"m", suite(name).sign(private, b"m"))
    private.save(ours)
    text = subprocess.run([openssl, "pkey", "-in", ours, "-check"], check=True, capture_output=True, text=True).stdout
    assert "Key is valid" in text
    assert ours.read_text() == theirs.read_text()
