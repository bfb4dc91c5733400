"""Secrets and addresses: where they may stand, and that they are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from common.options import Address, LocalFile
from common.secret import Secret, SecretError
from common.validation import findings
from connectors import secrets
from connectors.errors import ConnectorError


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: Address = "x://h"
    file: LocalFile = Path()
    key: Secret | None = None


def private(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o600)
    return file


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_from_a_file_beside_the_configuration(tmp_path: Path, end: str) -> None:
    (tmp_path / "password").write_bytes(f"s3cret {end}".encode())
    (tmp_path / "password").chmod(0o600)
    assert Secret.model_validate({"file": "password"}, context={"folder": tmp_path}).read() == "s3cret "


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT_PASSWORD", "s3cret")
    assert Secret(env="PLANT_PASSWORD").read() == "s3cret"


def test_from_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "mes").write_text("s3cret\n")
    (tmp_path / "mes").chmod(0o440)  # as systemd does for a unit with User=
    assert Secret(credential="mes").read() == "s3cret"
    with pytest.raises(SecretError, match="LoadCredential=plc:"):
        Secret(credential="plc").read()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644])
def test_a_file_that_others_may_read_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    file = private(tmp_path / "password", "s3cret")
    file.chmod(mode)
    with pytest.raises(SecretError, match=rf"FF-SECRET-002.*expected mode 0600, got 0{mode:o}") as refused:
        Secret(file=file).read()
    assert f"chmod 600 {file}" in refused.value.hint
    assert "s3cret" not in str(refused.value)
    file.chmod(0o600)
    assert Secret(file=file).read() == "s3cret"


@pytest.mark.parametrize(
    "secret", [Secret(env="NOT_SET_ANYWHERE"), Secret(file=Path("/nowhere/at/all")), Secret(credential="none")]
)
def test_absent(secret: Secret, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretError, match="FF-SECRET-001"):
        secret.read()
    with pytest.raises(ConnectorError, match="FF-SOURCE-001"):  # which the runtime tries again
        secrets.read(secret)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = private(tmp_path / "key", "")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretError, match="it is not UTF-8 text") as refused:
        Secret(file=file).read()
    assert refused.value.__cause__ is None  # which would hold the bytes


@pytest.mark.parametrize("places", [{}, {"file": "f", "env": "E"}, {"env": "E", "credential": "c"}])
def test_exactly_one_place(places: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="say where it is in one way"):
        Secret.model_validate(places)


@pytest.mark.parametrize("name", ["../other", "a/b", "", "a\nb"])
def test_a_credential_cannot_lead_out_of_its_folder(name: str) -> None:
    with pytest.raises(ValidationError):
        Secret(credential=name)


def test_a_secret_written_into_the_configuration_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError) as refused:
        Options.model_validate({"key": "hunter2"})
    (finding,) = findings(Options, refused.value)
    assert str(finding) == '"key": a secret does not stand in the configuration; use { file = "..." }'
    assert "hunter2" not in repr(finding)


def test_no_representation_shows_the_secret(tmp_path: Path) -> None:
    secret = Secret(file=private(tmp_path / "key", "hunter2"))
    assert secret.read() == "hunter2"
    assert "hunter2" not in repr(secret) + str(secret) + secret.model_dump_json()


def test_relative_files_stand_beside_the_configuration(tmp_path: Path) -> None:
    options = Options.model_validate({"file": "keys/own.pem"}, context={"folder": tmp_path})
    assert options.file == tmp_path / "keys" / "own.pem"
    absolute = Options.model_validate({"file": "/etc/own.pem"}, context={"folder": tmp_path})
    assert absolute.file == Path("/etc/own.pem")


@pytest.mark.parametrize(
    "url",
    [
        "opc.tcp://anna:s3cret@host:4840/path",
        "mysql+pymysql://anna:s3cret/with@signs@host/db",
        "postgresql+psycopg://anna@host/db?password=s3cret&x=1",
    ],
)
def test_an_address_with_a_password_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Options(url=url)
    assert "s3cret" not in str(refused.value) + repr(refused.value.errors()) + refused.value.json()


@pytest.mark.parametrize(
    "url", ["opc.tcp://host:4840/a@b", "sqlite:////data/a:b@c.db", "postgresql+psycopg://anna@host:5432/db"]
)
def test_an_address_without_a_password_stays_as_it_is(url: str) -> None:
    assert Options(url=url).url == url
