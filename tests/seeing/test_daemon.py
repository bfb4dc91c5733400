"""The real daemon as a person and as Prometheus see it: metrics, an alert that reaches its receiver, logs, status, the bundle."""

from __future__ import annotations

import json
import queue
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from gateway.seeing.rules import values_of
from tests.gateway.running import Daemon
from tests.gateway.served import draft, onnx_model

TASK = """
name = "wear"
layer = "cluster"
data = { window = 3 }
network = { encoder = [8], trunk = [4] }
training = { epochs = 1 }
rounds = { max = 3 }
"""


class Receiver:
    """Takes what a webhook is told, on loopback."""

    def __init__(self) -> None:
        self.told: queue.Queue[dict[str, object]] = queue.Queue()
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()


@pytest.mark.e2e
@pytest.mark.clause("9.4.3a")
@pytest.mark.clause("9.4.3b")
@pytest.mark.clause("9.4.3d")
def test_a_daemon_is_seen_from_all_sides(tmp_path: Path, receiver: Receiver) -> None:
    tail = f"""
[alerts]
every_s = 0.2
[[alerts.webhook]]
name = "shift-leader"
url = "{receiver.url}"
[[alert]]
name = "rows"
metric = "fedfab_end_rows"
above = 100
severity = "warning"
message = "{{end}} has {{value}} rows"
"""
    daemon = Daemon(tmp_path, tail=tail)
    try:
        daemon.models.add("old", draft(), onnx_model(add=0.0))
        daemon.models.promote("old", 1, "yesterday")
        daemon.start()
        daemon.plant.write(rows=400)
        daemon.wait_for_rows(390)
        told = receiver.told.get(timeout=30)
        assert (told["gateway"], told["alert"], told["what"]) == ("gateway-a", "rows", "fired")
        assert str(told["message"]).startswith("spindle-1 has ")

        window = {"inputs": [{"name": "window", "shape": [1, 3, 2], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}
        for _ in range(5):
            assert daemon.ask("/v2/models/old/infer", window)[0] == 200
        with urlopen(f"http://127.0.0.1:{daemon.port}/metrics", timeout=10) as page:
            values = values_of(parse(page.read().decode()))
        assert values["fedfab_source_up"][("source", "press"), ("type", "sql")] == 1  # type: ignore[index]
        assert values["fedfab_source_tags"][("source", "press"), ("state", "good")] == 4  # type: ignore[index]
        assert values["fedfab_source_readings_total"][(("source", "press"),)] == 1600
        assert values["fedfab_inference_seconds_count"][(("model", "old"),)] == 5
        assert values["fedfab_alert_active"][("alert", "rows"), ("severity", "warning")] == 1  # type: ignore[index]

        (tmp_path / "task.toml").write_text(TASK)
        assert daemon.command("train", str(tmp_path / "task.toml")).returncode == 0
        assert "local-wear" in daemon.command("logs").stdout
        lines = [json.loads(line) for line in daemon.command("logs", "local-wear", "--json").stdout.splitlines()]
        assert [line["round"] for line in lines if line["event"] == "round done"] == [1, 2, 3]
        assert [line["end"] for line in lines if line["event"] == "trained"] == ["spindle-1"] * 3, (
            "the worker's lines, too"
        )
        with urlopen(f"http://127.0.0.1:{daemon.port}/tasks/local-wear/log?level=info", timeout=10) as log:
            assert "attachment" in log.headers["Content-Disposition"]
            assert {json.loads(line)["level"] for line in log} == {"info"}

        shown = daemon.command("status").stdout
        for word in ("press", "spindle-1", "4/4", "has", "rows", "results"):
            assert word in shown
        written = tmp_path / "bundle.zip"
        assert daemon.command("diagnose", "--out", str(written)).returncode == 0
        with zipfile.ZipFile(written) as bundle:
            assert json.loads(bundle.read("status.json"))["gateway"] == "gateway-a"
            assert b"fedfab_source_up" in bundle.read("metrics.txt")
        assert daemon.stop() == 0, daemon.words()
    finally:
        daemon.kill()
