"""Secrets and addresses: where they may stand, and that they are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from connectors.errors import ConnectorError
from connectors.options import Address, LocalFile
from connectors.secrets import Secret


class Options(BaseModel):
    url: Address = "x://h"
    file: LocalFile = Path()


def test_from_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    assert Secret.model_validate({"file": "password"}, context={"folder": tmp_path}).value() == "s3cret"


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANT_PASSWORD", "s3cret")
    assert Secret(env="PLANT_PASSWORD").value() == "s3cret"


@pytest.mark.parametrize("secret", [Secret(env="NOT_SET_ANYWHERE"), Secret(file=Path("/nowhere/at/all"))])
def test_absent(secret: Secret) -> None:
    with pytest.raises(ConnectorError, match="FF-SOURCE-001"):
        secret.value()


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
