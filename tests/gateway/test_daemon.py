"""The real daemon as a process of its own, reading a real data base, from the first prediction to a clean end."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from common.files import claimed
from gateway.store import Store
from tests.conftest import free_port
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
