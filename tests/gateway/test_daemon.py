"""The real daemon as a process of its own, reading a real data base, from the first prediction to a clean end."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from common.files import claimed
from common.service import Exit
from gateway.store import Store
from tests.conftest import free_port, missing, need_program
from tests.gateway.running import Daemon
from tests.gateway.served import draft, onnx_model
from trust import pki

TASK = """
name = "wear"
layer = "cluster"
data = { window = 3 }
network = { encoder = [16], trunk = [8] }
training = { epochs = 4, batch_size = 16, learning_rate = 0.02 }
rounds = { max = 4 }
"""


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


@pytest.mark.e2e
@pytest.mark.clause("9.4.3l")
def test_one_task_is_trained_by_one_command_at_a_time(daemon: Daemon) -> None:
    (daemon.folder / "task.toml").write_text(TASK)
    with claimed(daemon.folder / "data" / "checkpoints" / "local-wear.lock"):
        second = daemon.command("train", str(daemon.folder / "task.toml"))
    assert second.returncode == 2
    assert 'FF-PROGRAM-006: task "wear" is being trained' in " ".join(second.stderr.split())


@pytest.mark.e2e
@pytest.mark.clause("5.4")
def test_a_box_without_any_network_starts_and_serves_when_it_comes(tmp_path: Path) -> None:
    """No route, no name service, an address to listen on that no interface has yet, and machines that cannot be reached."""
    pki.init(tmp_path / "ca", ["intl"], "Test Works")
    pki.issue(tmp_path / "ca", pki.Request("gateway-a", "gateway", "Test Works", ["192.0.2.7"]))
    identity = tmp_path / "ca" / "issued" / "gateway-a"
    daemon = Daemon(
        tmp_path,
        within=[need_program("unshare", "apt-get install util-linux"), "--net"],
        extra=f'certificate = "{identity / "intl.crt"}"\nkey = "{identity / "intl.key"}"\nopen = ["infer"]',
        tail=f'[trust]\nidentity = "{identity}"\nsuite = "intl"\n[coordinator]\nurl = "https://cloud.example:8443"\n'
        '[[source]]\nname = "line"\ntype = "opcua"\nendpoint = "opc.tcp://192.0.2.9:4840"\n'
        '[[source.tag]]\nname = "t"\nnode = "ns=2;s=T"\n',
    )
    daemon.edit(f"127.0.0.1:{daemon.port}", "192.0.2.7:8080")
    try:
        daemon.plant.write(rows=20)
        try:
            daemon.start()
        except AssertionError:
            if "unshare failed" in daemon.words():
                missing("no network namespaces for this user")
            raise
        status = json.loads(daemon.command("status", "--json").stdout)
        assert status["coordinator"]["connected"] is False
        assert {source["name"]: source["state"] for source in status["sources"]}["press"] == "reading"

        inside = ["nsenter", "--net", "--target", str(daemon.pid)]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run([*inside, "ip", "address", "add", "192.0.2.7/24", "dev", "lo"], check=True)
        get = (
            "import ssl, sys; from urllib.request import urlopen; context = ssl.create_default_context(cafile=sys.argv[1]);"
            "print(urlopen('https://192.0.2.7:8080/v2/health/live', context=context).status)"
        )
        got = subprocess.run(
            [*inside, sys.executable, "-c", get, str(identity / "ca.intl.crt")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert got.stdout.strip() == "200", got.stderr
        assert daemon.words().count("aggregator not reached") == 1, "said once"
        assert daemon.stop() == 0, daemon.words()
    finally:
        daemon.kill()


@pytest.mark.e2e
def test_what_hangs_does_not_keep_it_from_leaving(daemon: Daemon) -> None:
    """Another program holds the store; the daemon waits for it as long as it may, then it leaves with a status that says so."""
    daemon.edit("[inference]", "[service]\nstop_s = 2.0\n[inference]")
    daemon.plant.write(rows=20)
    daemon.start()
    daemon.wait_for_rows(15)
    with closing(sqlite3.connect(daemon.folder / "data" / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        daemon.plant.write(rows=20)
        started = time.monotonic()
        assert daemon.stop() == Exit.UNFINISHED == 75
        assert 1.5 < time.monotonic() - started < 10
    assert "not finished within 2 s" in daemon.words()
    daemon.start()
    daemon.wait_for_rows(35)
    assert daemon.stop() == 0, daemon.words()
