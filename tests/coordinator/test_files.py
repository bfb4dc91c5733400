"""Configuration and task files: the samples are whole, and every mistake is named with its line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel
from sqlalchemy import make_url
from typer.testing import CliRunner

from cli.coordinator import app
from common.secret import Secret
from common.tomlfile import FileError
from coordinator.check import check
from coordinator.config import Config
from coordinator.configfile import load_config, write_sample
from coordinator.errors import CoordinatorError
from coordinator.layout import LAYOUT
from federation.taskfile import load_task
from models.spec import TaskSpec
from tests.conftest import ROOT
from tests.coordinator.world import Cloud


def _write(folder: Path, text: str) -> Path:
    path = folder / "file.toml"
    path.write_text(text)
    return path


def test_a_configuration_says_where_every_mistake_stands(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        '[coordinator]\nname = "cloud"\ndata_dri = "x"\n[trust]\n[[listen]]\naddress = "127.0.0.1"\n[[listen]]\nsuite = "gn"\n',
    )
    with pytest.raises(FileError) as refused:
        load_config(path)
    assert refused.value.code == "FF-FILE-003"
    assert refused.value.message.splitlines()[1:] == [
        f'{path}:3: [coordinator]: unknown option "data_dri" (did you mean "data_dir"?)',
        f'{path}:6: [listen 1]: "address": expected host:port, port up to 65535, such as 127.0.0.1:8443 or [::]:8443, got "127.0.0.1"',
        f"{path}:8: [listen 2]: \"suite\": expected 'gm' or 'intl', got \"gn\"",
    ]


def test_a_task_says_where_every_mistake_stands(tmp_path: Path) -> None:
    path = _write(tmp_path, 'nam = "wear"\n\n[rounds]\nmax = 0\n')
    with pytest.raises(FileError) as refused:
        load_task(path)
    assert refused.value.message.splitlines()[1:] == [
        f'{path}:1: "name" is missing: Name of the task; models are named after it.',
        f'{path}:1: unknown option "nam" (did you mean "name"?)',
        f'{path}:4: [rounds]: "max": expected greater than or equal to 1, got 0',
    ]


@pytest.mark.parametrize(
    ("data", "code", "where"),
    [
        (b'name = "x"\nname = "y"\n', "FF-FILE-002", ":2: not TOML"),
        (b'name = "x"\nkind = "\xff"\n', "FF-FILE-002", ":2: expected UTF-8 text, got the byte 0xff"),
        (b"name = ", "FF-FILE-002", ":1: not TOML"),
    ],
)
def test_what_is_no_toml(tmp_path: Path, data: bytes, code: str, where: str) -> None:
    path = tmp_path / "file.toml"
    path.write_bytes(data)
    with pytest.raises(FileError) as refused:
        load_task(path)
    assert refused.value.code == code
    assert f"{path}{where}" in refused.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"FF-FILE-001: .*No such file") as refused:
        load_config(tmp_path / "nope.toml")
    assert "fedfab coordinator init" in refused.value.hint


def test_a_file_of_the_first_version_is_understood_and_brought_up_to_date(tmp_path: Path) -> None:
    old = '# ours\n[coordinator]\nname = "cloud"\ndatabase = "postgresql://f@db/f" # fast\n[trust]\n[log]\nstyle = "json"\n'
    path = _write(tmp_path, old)
    config = load_config(path)
    assert (config.version, config.database.url, config.log.format) == (1, "postgresql://f@db/f", "json")
    done = CliRunner().invoke(app, ["config", "migrate", "-c", str(path), "--dry-run"])
    assert (done.exit_code, path.read_text()) == (0, old)
    assert "+format = " in done.output
    done = CliRunner().invoke(app, ["config", "migrate", "-c", str(path)])
    assert done.exit_code == 0, done.output
    assert path.read_text().startswith("# ours\nversion = 2\n")
    assert 'url = "postgresql://f@db/f" # fast\n' in path.read_text()
    assert (tmp_path / "file.toml.v1.bak").read_text() == old
    assert load_config(path) == config.model_copy(update={"version": LAYOUT.version})
    done = CliRunner().invoke(app, ["config", "migrate", "-c", str(path)])
    assert "nothing to do" in done.output


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"FF-FILE-004: .*file.toml:1: version 9 belongs to a later fedfab") as refused:
        load_config(_write(tmp_path, 'version = 9\n[coordinator]\nfuture = "x"\n'))
    assert "*.bak" in refused.value.hint


def test_the_password_of_the_database_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    text = '[coordinator]\nname = "cloud"\n[trust]\n[database]\nurl = "postgresql://f{}@db/f"\npassword = {{ file = "pw" }}\n'
    (tmp_path / "pw").write_text("hunter2@/\n")
    (tmp_path / "pw").chmod(0o600)
    config = load_config(_write(tmp_path, text.format("")))
    assert make_url(config.database_url).password == "hunter2@/"
    assert "hunter2" not in repr(config)
    with pytest.raises(FileError, match="a password does not belong in the address") as refused:
        load_config(_write(tmp_path, text.format(":hunter2")))
    assert "hunter2" not in str(refused.value)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path, '[coordinator]\nname = "cloud"\n[trust]\nidentity = "keys"\n')
    config = load_config(path)
    assert config.coordinator.data_dir == tmp_path / "data"
    assert config.trust.identity == tmp_path / "keys"
    assert config.database_url == f"sqlite:///{tmp_path}/data/coordinator.db"


def test_two_listeners_need_two_addresses(tmp_path: Path) -> None:
    same = '[[listen]]\naddress = "127.0.0.1:8443"\n'
    with pytest.raises(FileError, match=r'two \[\[listen\]\] have the address "127.0.0.1:8443"'):
        load_config(_write(tmp_path, '[coordinator]\nname = "cloud"\n[trust]\n' + same * 2))


def test_the_sample_is_written_once_and_loads(tmp_path: Path) -> None:
    path = write_sample(tmp_path)
    assert load_config(path).coordinator.name == "cloud"
    with pytest.raises(CoordinatorError, match="FF-COORD-008"):
        write_sample(tmp_path)


@pytest.mark.parametrize(("name", "model"), [("coordinator.toml", Config), ("task.toml", TaskSpec)])
def test_samples_show_every_option(name: str, model: type[BaseModel]) -> None:
    text = (ROOT / "config" / name).read_text()
    whole = tomllib.loads(re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE))
    model.model_validate(whole)
    missing = [option for option in _options(model) if not _has(whole, option)]
    assert missing == []


def _options(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, field in model.model_fields.items():
        inner = [
            kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(kind, type)
        ]
        models = [kind for kind in inner if issubclass(kind, BaseModel) and kind is not Secret]
        path = (*prefix, field.alias or name)
        found += [option for kind in models for option in _options(kind, path)] or [path]
    return found


def _has(data: object, path: tuple[str, ...]) -> bool:
    if isinstance(data, list):
        return any(_has(one, path) for one in data)
    return not path or (isinstance(data, dict) and path[0] in data and _has(data[path[0]], path[1:]))


def test_check_says_what_is_in_order_and_changes_nothing(cloud: Cloud) -> None:
    lines = list(check(cloud.config))
    assert lines[0].endswith(": coordinator cloud")
    assert re.fullmatch(rf"listen 127.0.0.1:{cloud.port}: intl, certificate valid until \d{{4}}-\d\d-\d\d", lines[1])
    assert lines[2] == "database: not made yet, `run` makes it"
    assert not (cloud.folder / "data").exists()


def test_check_refuses_the_certificate_of_another(cloud: Cloud) -> None:
    path = cloud.config
    path.write_text(path.read_text().replace("issued/cloud", "issued/ann"))
    with pytest.raises(CoordinatorError, match=r'FF-COORD-009: .* is for "ann", a operator; expected "cloud"'):
        list(check(path))
