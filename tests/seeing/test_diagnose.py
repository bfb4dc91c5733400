"""The bundle for whoever helps: complete, readable without a running gateway, and without one secret."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tasklog import TaskLogs
from gateway.config import Config, Trust
from gateway.modelstore import ModelStore
from gateway.seeing.diagnose import diagnose
from gateway.seeing.reach import reach
from gateway.seeing.redact import Redactor
from gateway.store import Store
from tests.conftest import free_port
from tests.coordinator.world import Cloud
from tests.gateway.served import draft, onnx_model
from trust import pki

SECRETS = {
    "file": "hunter2-from-a-file",
    "environment": "hunter2-from-the-environment",
    "hook": "T0123/B4567/hunter2-in-an-address",
    "url": "hunter2-in-a-url",
    "log": "hunter2-in-a-log",
    "bearer": "hunter2bearer",
    "option": "hunter2-in-an-option",
}
CONFIG = """
[gateway]
name = "gateway-a"
data_dir = "data"
[inference]
listen = "127.0.0.1:{port}"
[trust]
identity = "{identity}"
suite = "intl"
[coordinator]
url = "https://127.0.0.1:{away}"
[[alerts.webhook]]
name = "chat"
url = "https://hooks.example/{hook}"
hmac = {{ env = "FEDFAB_HOOK_KEY" }}
[[source]]
name = "press"
type = "sql"
url = "postgresql+psycopg://reader@db.example/plant"
password = {{ file = "db.password" }}
table = "readings"
cursor = "id"
every_s = 1.0
{extra}
[[source.tag]]
name = "vibration"
column = "vibration"
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gateway's folder with a secret in every corner; gives its configuration file."""
    pki.init(tmp_path / "ca", ["intl"], "Test Works")
    pki.issue(tmp_path / "ca", pki.Request("gateway-a", "gateway", "Test Works", ["127.0.0.1"]))
    (tmp_path / "db.password").touch(mode=0o600)
    (tmp_path / "db.password").write_text(SECRETS["file"] + "\n")
    monkeypatch.setenv("FEDFAB_HOOK_KEY", SECRETS["environment"])
    monkeypatch.setenv("CI_API_TOKEN", SECRETS["environment"] + "-2")
    logs = TaskLogs(tmp_path / "data" / "logs")
    for said in (
        f"connecting with password={SECRETS['log']}",
        f"postgresql://reader:{SECRETS['url']}@db.example/plant refused",
        f"Authorization: Bearer {SECRETS['bearer']}",
        f"the database said {SECRETS['file']} is wrong",
        "round done",
    ):
        logs(None, "info", {"event": said, "level": "info", "task": "t1", "api_key": SECRETS["option"]})
    models = ModelStore(tmp_path / "data" / "models")
    models.add("wear", draft(), onnx_model(add=0.0))
    models.promote("wear", 1, "a test")
    Store.open(tmp_path / "data" / "store.db").close()
    write(tmp_path)
    return tmp_path / "gateway.toml"


def write(folder: Path, extra: str = "") -> None:
    identity = folder / "ca" / "issued" / "gateway-a"
    (folder / "gateway.toml").write_text(
        CONFIG.format(port=free_port(), away=free_port(), identity=identity, hook=SECRETS["hook"], extra=extra)
    )


def content(bundle: Path) -> dict[str, str]:
    with zipfile.ZipFile(bundle) as opened:
        return {name: opened.read(name).decode() for name in opened.namelist()}


def leaked(files: dict[str, str], folder: Path) -> list[tuple[str, str]]:
    key = (folder / "ca" / "issued" / "gateway-a" / "intl.key").read_text().splitlines()[1]
    wanted = {*SECRETS.values(), SECRETS["environment"] + "-2", key}
    return [(name, secret) for name, text in files.items() for secret in wanted if secret in text]


def test_the_bundle_says_everything_but_secrets(plant: Path, tmp_path: Path) -> None:
    written, told = diagnose(plant, tmp_path / "out.zip")
    files = content(written)
    assert leaked(files, tmp_path) == []
    assert leaked({"terminal": "\n".join(told)}, tmp_path) == []
    assert written.stat().st_mode & 0o777 == 0o600
    assert files.keys() >= {
        "README.txt", "version.txt", "configuration/gateway.toml", "status.json", "metrics.txt", "logs/t1.jsonl",
        "logs/journal.txt", "store.txt", "models/wear.json", "certificates.txt", "system.json", "connection.txt",
    }  # fmt: skip
    assert 'password = { file = "db.password" }' in files["configuration/gateway.toml"], "where it lies may be told"
    assert "round done" in files["logs/t1.jsonl"]
    assert "CN=gateway-a" in files["certificates.txt"]
    assert "FF-DAEMON-002" in files["status.json"], "no gateway runs, and that is told in its place"
    assert json.loads(files["models/wear.json"])["version"] == 1
    assert json.loads(files["system.json"])["disk_bytes"] > 0
    assert "store.db" in files["store.txt"]
    steps = files["connection.txt"].splitlines()
    assert [step.split()[0] for step in steps] == ["ok", "FAILED"], "the name is known, nobody listens"
    assert "connection to the coordinator" in steps[1]


def test_a_configuration_that_cannot_be_used_is_in_the_bundle_with_its_problems(plant: Path, tmp_path: Path) -> None:
    write(tmp_path, extra=f"pasword = \"{SECRETS['option']}\"\ntoken = '{SECRETS['option']}'")
    files = content(diagnose(plant, tmp_path / "out.zip")[0])
    assert "FF-CONFIG-003" in files["configuration/problems.txt"]
    assert leaked(files, tmp_path) == []


@given(st.text(st.characters(categories=["L", "N", "P"]), min_size=4), st.text(), st.text())
def test_a_known_secret_is_found_wherever_it_stands(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor([secret])(before + secret + after).replace("[redacted]", "")


async def test_each_step_to_a_coordinator_is_told(ca: Path, tmp_path: Path) -> None:
    cloud = Cloud(ca, tmp_path)
    config = Config.model_validate(
        {
            "gateway": {"name": "gateway-a", "data_dir": tmp_path / "data"},
            "trust": {"identity": ca / "issued" / "gateway-a", "suite": "intl"},
            "coordinator": {"url": cloud.url},
        }
    )
    async with cloud.running():
        steps = [step async for step in reach(config)]
    assert [step.ok for step in steps] == [True] * 4, steps
    assert "gateway-a, role gateway, valid until" in steps[2].told
    assert "cloud speaks version" in steps[3].told

    stranger = tmp_path / "other"
    pki.init(stranger, ["intl"], "Other Works")
    pki.issue(stranger, pki.Request("gateway-a", "gateway", "Other Works"))
    wrong = config.model_copy(update={"trust": Trust(identity=stranger / "issued" / "gateway-a", suite="intl")})
    async with cloud.running():
        *fine, last = [step async for step in reach(wrong)]
    assert all(step.ok for step in fine)
    assert (last.ok, last.name) == (False, "TLS and session with the coordinator")
    assert "FF-" in last.told
