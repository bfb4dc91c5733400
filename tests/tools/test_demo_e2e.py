"""The main job, for real: every process its own, real protocols, two layers of learning, judged on machines nobody has seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing

LIMIT_S = 420.0


def running(folder: Path) -> list[int]:
    """Processes that have this folder as their working directory."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def loads_torch(pid: int) -> bool:
    """Whether a process has torch's library in its memory."""
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def demo(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "cli.main", "demo", "--once", "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in (out / "logs").glob("*.log"))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    assert running(out) == [], "no process is left behind"
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results, done.stdout


def by_kind(results: dict[str, Any], end: str, clusters: dict[str, str]) -> tuple[float, float]:
    """An end's error and the federated one on the same unseen machines."""
    return results["ends"][end], results["by_cluster"][clusters[end]]["federated"]


@pytest.mark.e2e
@pytest.mark.clause("5.1")
@pytest.mark.clause("8.6")
@pytest.mark.clause("8.9")
def test_unlike_gateways_learn_together_and_every_machine_gains(tmp_path: Path) -> None:
    results, shown = demo(tmp_path / "out")
    assert (results["metric"], results["better"]) == ("rmse", "lower")
    clusters = {end: f"{end.rpartition('-')[0]}s" for end in results["ends"]}
    assert len(results["ends"]) == 6
    for end in results["ends"]:
        alone, together = by_kind(results, end, clusters)
        assert together < alone, f"{end} gains nothing"
    assert results["federated"] < min(results["ends"].values())
    assert results["federated"] < 1.25 * results["joined"]
    assert results["seconds"] < 300
    for end, rows in results["rows"].items():
        assert rows["stored"] <= rows["sent"]
        assert rows["stored"] >= (0.8 if end in ("pump-1", "pump-2") else 0.99) * rows["sent"], end
    assert '"outputs"' in shown, "the prediction was really made"
    assert "curl" in shown
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<polyline") == 6 + 2 + 6
    events = (tmp_path / "out" / "curves.json").read_text()
    assert set(json.loads(events)) == {"end", "cluster", "cloud"}


@pytest.mark.e2e
@pytest.mark.clause("6.1")
def test_engines_of_four_sites_are_learned_together(tmp_path: Path, data_dir: Path) -> None:
    if not (data_dir / "cmapss" / "train_FD001.txt").exists():
        missing(f"no C-MAPSS in {data_dir}")
    results, _ = demo(tmp_path / "out", "--data", "cmapss", "--suite", "intl")
    assert all(rows["stored"] == rows["sent"] for rows in results["rows"].values()), "every row has arrived"
    assert sum(rows["sent"] for rows in results["rows"].values()) == 20631
    assert results["federated"] < min(results["ends"].values())
    assert results["federated"] <= 1.05 * results["joined"]


@pytest.mark.e2e
@pytest.mark.clause("5.2")
@pytest.mark.clause("8.10.2")
def test_it_serves_until_ctrl_c_and_torch_stays_out_of_the_daemons(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cli.main", "demo", "--out", str(out), "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        try:
            deadline = time.monotonic() + LIMIT_S
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if line.startswith("serving until") or time.monotonic() > deadline:
                    break
            assert lines[-1].startswith("serving until"), "".join(lines)
            commands = {pid: Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in running(out)}
            daemons = [pid for pid, words in commands.items() if "cli.main" in words]
            workers = [pid for pid, words in commands.items() if "gateway.worker" in words]
            assert len(daemons) == 4, "coordinator, plant, two gateways"
            assert not any(map(loads_torch, daemons))
            assert any(map(loads_torch, workers))
            curl = next(line for line in lines if line.startswith("curl"))
            answer = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
            (prediction,) = json.loads(answer)["outputs"]
            assert 0 <= prediction["data"][0] <= 160
        finally:
            os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) == 0
    assert running(out) == []
