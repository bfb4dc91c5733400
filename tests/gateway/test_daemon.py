"""The real daemon as a process of its own, reading a real data base, from the first prediction to a clean end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from gateway.modelstore import ModelStore
from gateway.store import Store
from tests.conftest import ROOT, free_port
from tests.gateway.served import draft, onnx_model
from trust import pki

CONFIG = """
[gateway]
name = "gateway-a"
data_dir = "data"

[inference]
listen = "127.0.0.1:{port}"
{extra}

[[source]]
name = "press"
type = "sql"
url = "sqlite:///{plant}"
table = "readings"
cursor = "id"
time = "at"
time_unit = "ms"
every_s = 0.2

[[source.tag]]
name = "vibration"
column = "vibration"
unit = "mm/s"
[[source.tag]]
name = "temperature"
column = "temperature"
unit = "degC"
[[source.tag]]
name = "wear"
column = "wear"
unit = "um"
[[source.tag]]
name = "cycle"
column = "cycle"

[[cluster]]
name = "spindles"
rows = {{ on_change = "cycle", wait_s = 0.0 }}
label = {{ field = "wear" }}
[[cluster.field]]
name = "vibration"
unit = "mm/s"
[[cluster.field]]
name = "temperature"
unit = "degC"
[[cluster.field]]
name = "wear"
unit = "um"
role = "aux"
[[cluster.field]]
name = "cycle"
role = "aux"

[[end]]
name = "spindle-1"
cluster = "spindles"
tags = {{ vibration = "press/vibration", temperature = "press/temperature", wear = "press/wear", cycle = "press/cycle" }}
"""
TASK = """
name = "wear"
layer = "cluster"
data = { window = 3 }
network = { encoder = [16], trunk = [8] }
training = { epochs = 4, batch_size = 16, learning_rate = 0.02 }
rounds = { max = 4 }
"""


class Plant:
    """A table that a machine writes; rows appear in one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[int, int, float, float, float, int]] = []

    def write(self, rows: int) -> None:
        with sqlite3.connect(self.path) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, at, vibration, temperature, wear, cycle)"
            )
            start = len(self.rows)
            now_ms = time.time_ns() // 1_000_000
            for i in range(start, start + rows):
                wear = (i % 50) / 50
                self.rows.append(
                    (i + 1, now_ms - (start + rows - i) * 100, 2 + 6 * wear, 40 + 30 * wear, 100 * wear, i)
                )
            database.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?)", self.rows[start:])
        database.close()


class Daemon:
    """The gateway in a process of its own. Tells when it is ready the way systemd is told."""

    def __init__(self, folder: Path, *, extra: str = "", tail: str = "", tls: bool = False) -> None:
        self.folder = folder
        self.plant = Plant(folder / "plant.db")
        self.port = free_port()
        self.config = folder / "gateway.toml"
        self.config.write_text(CONFIG.format(port=self.port, plant=self.plant.path, extra=extra) + tail)
        self.models = ModelStore(folder / "data" / "models")
        self.log = (folder / "log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            address = str(self.folder / "notify")
            ready.bind(address)
            ready.settimeout(1)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "gateway", "run", "-c", str(self.config)],
                cwd=ROOT, stderr=self.log, env={**os.environ, "NOTIFY_SOCKET": address},
            )  # fmt: skip
            while True:
                try:
                    assert ready.recv(100) == b"READY=1"
                    return
                except TimeoutError:
                    assert self.process.poll() is None, self.words()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def words(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.port}{path}", data=data), timeout=10) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            return error.code, json.load(error)

    def wait_for_rows(self, rows: int) -> None:
        deadline = time.monotonic() + 30
        while (status := self.ask("/status")[1])["ends"][0]["rows"] < rows:
            assert time.monotonic() < deadline, (status, self.words())
            time.sleep(0.05)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "gateway", *words, "-c", str(self.config)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.kill()


@pytest.mark.e2e
@pytest.mark.clause("5.4")
@pytest.mark.clause("8.10.2")
@pytest.mark.clause("9.3.4f")
def test_a_day_without_a_coordinator(daemon: Daemon) -> None:
    daemon.models.add("old", draft(), onnx_model(add=0.0))
    daemon.models.promote("old", 1, "yesterday")
    daemon.start()
    window = {"inputs": [{"name": "window", "shape": [1, 3, 2], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}
    status, answer = daemon.ask("/v2/models/old/infer", window)
    assert (status, answer["outputs"][0]["data"]) == (200, [21.0]), "predictions before any source answers"
    assert daemon.ask("/v2/models/old/infer", {"parameters": {"end": "spindle-1"}})[0] == 409

    daemon.plant.write(rows=400)
    daemon.wait_for_rows(390)
    newest = sum(sum(row[2:4]) for row in daemon.plant.rows[-4:])
    status, answer = daemon.ask("/v2/models/old/infer", {"parameters": {"end": "spindle-1"}})
    assert status == 200
    assert answer["outputs"][0]["data"][0] == pytest.approx(newest, rel=0.5)

    (daemon.folder / "task.toml").write_text(TASK)
    assert daemon.ask("/v2/models/wear-spindles/infer", {"parameters": {"end": "spindle-1"}})[0] == 404
    trained = daemon.command("train", str(daemon.folder / "task.toml"))
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "promoted: the first of its name" in trained.stdout
    status, answer = daemon.ask("/v2/models/wear-spindles/infer", {"parameters": {"end": "spindle-1"}})
    assert status == 200
    assert answer["model_version"] == "1"
    assert "spindle-1" in daemon.command("status").stdout
    assert "promoted" in daemon.command("model", "list").stdout

    assert daemon.process is not None
    assert "torch" not in Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert daemon.stop() == 0, daemon.words()
    with Store.open(daemon.folder / "data" / "store.db", read_only=True) as store:
        results = [(result.model, result.end) for result in store.results()]
    assert results == [("old", ""), ("old", "spindle-1"), ("wear-spindles", "spindle-1")]


@pytest.mark.e2e
@pytest.mark.clause("9.2.4")
def test_https_where_a_certificate_is_configured_and_a_coordinator_that_is_away(tmp_path: Path) -> None:
    """With TLS, and with a coordinator nobody answers for: serving and reading go on, and it still leaves in good order."""
    pki.init(tmp_path / "ca", ["intl"], "Test Works")
    pki.issue(tmp_path / "ca", pki.Request("gateway-a", "gateway", "Test Works", ["127.0.0.1"]))
    identity = tmp_path / "ca" / "issued" / "gateway-a"
    (certificate,) = identity.glob("intl.crt")
    daemon = Daemon(
        tmp_path,
        extra=f'certificate = "{certificate}"\nkey = "{identity / "intl.key"}"',
        tail=f'[trust]\nidentity = "{identity}"\nsuite = "intl"\n[coordinator]\nurl = "https://127.0.0.1:{free_port()}"\n',
    )
    try:
        daemon.plant.write(rows=20)
        daemon.start()
        status = daemon.command("status", "--json")
        assert status.returncode == 0, status.stderr
        found = json.loads(status.stdout)
        assert found["coordinator"]["connected"] is False
        with pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urlopen(f"https://127.0.0.1:{daemon.port}/v2/health/live", timeout=10)
        with pytest.raises(OSError):  # noqa: PT011 - plain HTTP finds no HTTP there
            urlopen(f"http://127.0.0.1:{daemon.port}/v2/health/live", timeout=10)
        trusted = ssl.create_default_context(cafile=str(identity / "ca.intl.crt"))
        with urlopen(f"https://127.0.0.1:{daemon.port}/v2/health/live", context=trusted, timeout=10) as response:
            assert response.status == 200
        assert daemon.stop(signal.SIGINT) == 0, daemon.words()
        assert "aggregator not reached" in daemon.words()
    finally:
        daemon.kill()


@pytest.mark.e2e
def test_a_port_that_is_taken_is_said_in_one_sentence(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    with socket.create_server(("127.0.0.1", daemon.port)):
        refused = daemon.command("run")
    assert refused.returncode == 2
    assert f"FF-INFER-011: cannot listen on 127.0.0.1:{daemon.port}" in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    daemon.kill()
