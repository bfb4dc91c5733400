"""Every secret that a gateway can be given is used by the real daemon, and shows up nowhere: no log, status, answer, error or file."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

import pytest

from gateway import configdocs
from tests.gateway.running import Daemon
from trust import pki

SECRETS = {
    "SqlConfig.password",
    "OpcUaConfig.password",
    "Client.secret",
    "Coordinator.proxy_password",
    "Webhook.url_secret",
    "Webhook.authorization",
    "Webhook.hmac",
    "Mqtt.password",
    "Email.password",
}
"""Options of type `common.secret.Secret`; a new one gets its place in `CONFIG`, too."""

CONFIG = """
[log]
level = "debug"

[trust]
identity = "{identity}"
suite = "intl"

[coordinator]
url = "https://127.0.0.1:1"
proxy = "http://anna@127.0.0.1:1"
proxy_password = {{ file = "Coordinator.proxy_password" }}

[[source]]
name = "database"
type = "sql"
url = "postgresql+psycopg://anna@127.0.0.1:1/plant"
password = {{ env = "SQL_PASSWORD" }}
table = "t"
cursor = "id"
tag = [{{ name = "x", column = "x" }}]

[[source]]
name = "server"
type = "opcua"
endpoint = "opc.tcp://127.0.0.1:1"
user = "anna"
password = {{ credential = "opcua" }}
allow_plain_password = true
tag = [{{ name = "x", node = "i=1" }}]

[alerts]
every_s = 0.1

[[alerts.webhook]]
name = "hook"
url_secret = {{ file = "Webhook.url_secret" }}
authorization = {{ file = "Webhook.authorization" }}
hmac = {{ file = "Webhook.hmac" }}
least = "info"

[[alerts.mqtt]]
name = "broker"
host = "127.0.0.1"
port = 1
tls = false
user = "anna"
password = {{ file = "Mqtt.password" }}
topic = "${{TOPIC}}"
least = "info"

[[alerts.email]]
name = "post"
host = "127.0.0.1"
port = 1
security = "none"
user = "anna"
password = {{ file = "Email.password" }}
sender = "a@example.org"
to = ["b@example.org"]
least = "info"

[[alert]]
name = "always"
metric = "fedfab_process_memory_bytes"
above = 1.0
for_s = 0.0
"""

INFERENCE = """
client = [
  { name = "mes", secret = { file = "Client.secret" } },
]
open = ["infer", "status", "metrics"]
"""


def test_no_option_that_is_a_secret_is_left_out() -> None:
    found = {
        f"{name}.{option}"
        for name, section in configdocs.schema()["$defs"].items()
        for option, described in section.get("properties", {}).items()
        if "#/$defs/Secret" in json.dumps(described)
    }
    assert found == SECRETS


@pytest.mark.e2e
def test_no_secret_shows_up_anywhere(tmp_path: Path) -> None:
    pki.init(tmp_path / "ca", ["intl"], "Test Works")
    pki.issue(tmp_path / "ca", pki.Request("gateway-a", "gateway", "Test Works", ["127.0.0.1"]))
    secrets = {name: f"hunter2-of-{name}-which-nobody-may-see" for name in SECRETS}
    for name, secret in secrets.items():
        text = f"https://127.0.0.1:1/{secret}" if name == "Webhook.url_secret" else secret
        (tmp_path / name).write_text(f"{text}\n")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "OpcUaConfig.password").rename(tmp_path / "credentials" / "opcua")
    config = CONFIG.format(identity=tmp_path / "ca" / "issued" / "gateway-a")
    daemon = Daemon(tmp_path, extra=INFERENCE, tail=config)
    environment = {
        "SQL_PASSWORD": secrets["SqlConfig.password"],
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "TOPIC": "hunter2-in-a-variable",
    }
    try:
        daemon.plant.write(rows=20)
        with pytest.MonkeyPatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            daemon.start()
            daemon.wait_for_rows(15)
            daemon.wait_for(
                lambda _: all(word in daemon.words() for word in ("database", "server", "hook", "broker", "post"))
            )
            shown = [
                daemon.command("check"),
                daemon.command("check", "--probe"),
                daemon.command("status"),
                daemon.command("status", "--json"),
            ]
            with urlopen(f"http://127.0.0.1:{daemon.port}/metrics", timeout=10) as answer:
                metrics = answer.read().decode()
            patched.setenv("TOPIC", "hunter2/#")
            shown.append(refused := daemon.command("check"))
        assert daemon.stop() == 0, daemon.words()
    finally:
        daemon.kill()
    texts = [each.stdout + each.stderr for each in shown]
    assert 'got "${TOPIC}", whose value is not shown' in " ".join(refused.stderr.split())
    assert not [text for text in (*texts, metrics, daemon.words()) if "hunter2" in text]
    written = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    assert written
    assert not [file for file in written if b"hunter2" in file.read_bytes()]
