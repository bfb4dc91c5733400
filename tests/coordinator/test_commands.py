"""The commands an operator types, against a running coordinator."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from coordinator.api import openapi_document
from models.parameters import from_bytes
from tests.coordinator.test_life import Broken
from tests.coordinator.world import Cloud, Gate
from trust.keys import SuiteName

TASK = 'name = "wear"\n[rounds]\nmax = 2\n'


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str


async def _fedfab(cloud: Cloud, *arguments: str) -> Ended:
    environment = {
        **os.environ,
        "FEDFAB_COORDINATOR": cloud.url,
        "FEDFAB_IDENTITY": str(cloud.ca / "issued" / "ann"),
        "FEDFAB_SUITE": cloud.suite,
        "COLUMNS": "300",
    }
    command = [sys.executable, "-m", "cli.main", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@pytest.mark.e2e
@pytest.mark.clause("8.2")
async def test_submit_watch_and_look_at_the_model(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "task.toml"
    file.write_text(TASK)
    async with asyncio.timeout(120), cloud.running(), cloud.plants("gateway-a", "gateway-b"):
        task = (await _fedfab(cloud, "task", "submit", str(file))).out.strip()
        watched = await _fedfab(cloud, "task", "watch", task)
        assert watched.status == 0, watched.err
        assert "finished" in watched.out
        assert "rmse" in watched.out
        lines = [json.loads(line) for line in (await _fedfab(cloud, "task", "watch", task, "--json")).out.splitlines()]
        assert lines[-1]["body"]["state"] == "finished"
        (listed,) = json.loads((await _fedfab(cloud, "task", "list", "--json")).out)
        assert (listed["id"], listed["state"]) == (task, "finished")
        assert task in (await _fedfab(cloud, "task", "list", "--state", "finished")).out
        looked_at = (await _fedfab(cloud, "task", "show", task)).out
        assert "layer cloud, members gateway-a, gateway-b" in looked_at
        (slow,) = [line for line in looked_at.splitlines() if "gateway-b" in line and "cloud" in line and "│" in line]
        assert "compute" in looked_at, "where the time of the latest round went"
        assert len([cell for cell in slow.split("│") if cell.strip()]) == 8
        assert "promoted" in (await _fedfab(cloud, "model", "list")).out
        params = tmp_path / "wear.safetensors"
        shown = await _fedfab(cloud, "model", "show", "wear", "1", "--params", str(params))
        assert f"made by task {task}, the first of its name" in shown.out
        assert "gateway-b" in shown.out
        assert "head/0.bias" in from_bytes(params.read_bytes())
        again = (await _fedfab(cloud, "task", "submit", str(file), "--json")).out
        await _fedfab(cloud, "task", "watch", json.loads(again)["id"])
        assert "wear version 1 is in use" in (await _fedfab(cloud, "model", "rollback", "wear")).out
        assert "wear version 2 is in use" in (await _fedfab(cloud, "model", "promote", "wear", "2")).out


@pytest.mark.e2e
async def test_watch_tells_failure_by_its_exit_status(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Broken, "mended", False)
    file = tmp_path / "task.toml"
    file.write_text('name = "wear"\n')
    async with asyncio.timeout(60), cloud.running():
        async with cloud.plant("gateway-a", make=Broken):
            task = (await _fedfab(cloud, "task", "submit", str(file))).out.strip()
            watched = await _fedfab(cloud, "task", "watch", task)
        assert watched.status == 1
        assert "no label at" in watched.out


@pytest.mark.e2e
async def test_cancel(cloud: Cloud, tmp_path: Path) -> None:
    gate = Gate.at(1)
    file = tmp_path / "task.toml"
    file.write_text(TASK)
    async with asyncio.timeout(60), cloud.running(), cloud.plant("gateway-a", make=gate):
        task = (await _fedfab(cloud, "task", "submit", str(file))).out.strip()
        await gate.reached.wait()
        assert "cancelled by ann" in (await _fedfab(cloud, "task", "cancel", task)).out
        assert (await _fedfab(cloud, "task", "watch", task)).status == 1


async def test_both_suites(ca: Path, tmp_path: Path, suite_name: SuiteName) -> None:
    cloud = Cloud(ca, tmp_path, suite_name)
    async with asyncio.timeout(60), cloud.running():
        assert (await _fedfab(cloud, "task", "list", "--json")).out == "[]\n"


async def test_a_wrong_task_file_is_refused_before_anything_is_sent(cloud: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "task.toml"
    file.write_text('name = "wear"\n[rounds]\nmaxx = 2\n')
    refused = await _fedfab(cloud, "task", "submit", str(file))  # nothing listens
    assert f'{file}:3: [rounds]: unknown option "maxx" (did you mean "max"?)' in refused.err


async def test_nothing_listens(cloud: Cloud) -> None:
    refused = await _fedfab(cloud, "task", "list")
    assert "FF-COORD-040" in refused.err
    assert cloud.url in refused.err


def test_openapi_is_printed() -> None:
    assert json.loads(CliRunner().invoke(app, ["coordinator", "openapi"]).stdout) == openapi_document()


def test_init_check_migrate(tmp_path: Path, cloud: Cloud) -> None:
    runner = CliRunner(env={"COLUMNS": "300"})
    assert runner.invoke(app, ["coordinator", "init", str(tmp_path / "new")]).exit_code == 0
    assert (tmp_path / "new" / "coordinator.toml").exists()
    assert "certificate valid until" in runner.invoke(app, ["coordinator", "check", "-c", str(cloud.config)]).stdout
    assert runner.invoke(app, ["coordinator", "migrate", "-c", str(cloud.config)]).stdout == "empty -> 0001\n"
    assert runner.invoke(app, ["coordinator", "migrate", "-c", str(cloud.config)]).stdout == "0001 already\n"
    assert "database: up to date" in runner.invoke(app, ["coordinator", "check", "-c", str(cloud.config)]).stdout


@pytest.mark.e2e
def test_the_daemon_serves_until_it_is_told_to_stop(cloud: Cloud, tmp_path: Path) -> None:
    """The real process: says when it is ready, to its parent and to systemd; ends at SIGTERM with a call waiting; starts again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        for _ in range(2):
            reading, writing = os.pipe()
            with subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "cli.main",
                    "coordinator",
                    "run",
                    "-c",
                    cloud.config,
                    "--ready-fd",
                    str(writing),
                ],
                pass_fds=[writing],
                env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
                stderr=subprocess.PIPE,
            ) as daemon:
                os.close(writing)
                with os.fdopen(reading) as ready:
                    assert ready.read() == f"{cloud.url}\n"
                assert systemd.recv(100) == b"READY=1"
                daemon.send_signal(signal.SIGTERM)
                assert daemon.wait(30) == 0
                assert systemd.recv(100) == b"STOPPING=1"


@pytest.mark.e2e
def test_a_taken_port_is_said_in_one_sentence(cloud: Cloud) -> None:
    with socket.create_server(("127.0.0.1", cloud.port)):
        found = subprocess.run(
            [sys.executable, "-m", "cli.main", "coordinator", "run", "-c", cloud.config],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
        )
    assert found.returncode == 2
    assert "FF-COORD-013" in found.stderr
    assert "Traceback" not in found.stderr
