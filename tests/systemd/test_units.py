"""The units: what systemd itself thinks of them, and that they say the same as the programs they start."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from common.service import Exit
from gateway.config import Service
from tests.conftest import ROOT, need_program

UNITS = ROOT / "systemd"
SERVICES = ("fedfab-gateway.service", "fedfab-coordinator.service")
NOT_FOR_252 = "newer-systemd.conf"
EXPOSURE = 2.0


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = need_program("systemd-analyze", "sudo apt-get install systemd")
    return subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=60)


def box(folder: Path) -> Path:
    """A root folder with the units, and the programs they start."""
    system = folder / "etc" / "systemd" / "system"
    shutil.copytree(UNITS, system, ignore=shutil.ignore_patterns("examples"))
    for program in ("opt/fedfab/current/bin/fedfab", "bin/kill"):
        path = folder / program
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    shutil.copytree("/usr/lib/systemd/system", folder / "usr/lib/systemd/system", symlinks=True)
    return folder


def options(unit: Path) -> dict[str, list[str]]:
    """Each option of a unit with all it is given."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.server("systemd")
@pytest.mark.parametrize("service", SERVICES)
def test_the_exposure_is_low(service: str) -> None:
    judged = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE * 10:.0f}", UNITS / service)
    assert judged.returncode == 0, judged.stdout
    assert judged.stderr == ""


@pytest.mark.server("systemd")
def test_systemd_has_nothing_to_say_against_them(tmp_path: Path) -> None:
    judged = analyze("verify", f"--root={box(tmp_path)}", *SERVICES, "fedfab.target")
    assert (judged.returncode, judged.stderr) == (0, "")


@pytest.mark.server("systemd")
@pytest.mark.parametrize(
    "example", sorted(path.name for path in (UNITS / "examples").iterdir() if path.name != NOT_FOR_252)
)
def test_nor_against_the_examples(tmp_path: Path, example: str) -> None:
    root = box(tmp_path)
    extra = root / "etc/systemd/system/fedfab-gateway.service.d"
    extra.mkdir()
    shutil.copy(UNITS / "examples" / example, extra)
    judged = analyze("verify", f"--root={root}", SERVICES[0])
    assert (judged.returncode, judged.stderr) == (0, "")


@pytest.mark.server("systemd")
def test_a_mistake_would_be_seen(tmp_path: Path) -> None:
    root = box(tmp_path)
    unit = root / "etc/systemd/system" / SERVICES[0]
    unit.write_text(
        unit.read_text().replace("PrivateUsers=", "PrivateUser=").replace("OOMPolicy=continue", "OOMPolicy=no")
    )
    judged = analyze("verify", f"--root={root}", SERVICES[0])
    assert "Unknown key 'PrivateUser'" in judged.stderr
    assert len(judged.stderr.splitlines()) == 2


@pytest.mark.parametrize("service", SERVICES)
def test_they_fit_the_programs(service: str) -> None:
    unit, settings = options(UNITS / service), Service()
    assert float(unit["TimeoutStopSec"][0]) > settings.stop_s + 5, "systemd waits longer than the daemon takes"
    assert float(unit["WatchdogSec"][0]) / 2 > 30, "SQLite waits 30 s for a file that is locked, and that is no hang"
    assert unit["Restart"] == ["on-failure"]
    assert unit["StartLimitIntervalSec"] == ["0"]
    assert unit["Type"] == ["notify"]
    assert "RestartPreventExitStatus" not in unit, f"{[int(status) for status in Exit]}: each may be over next time"


def test_they_start_what_is_installed() -> None:
    installer = (ROOT / "deploy" / "install.sh").read_text()
    for service in SERVICES:
        (command,) = options(UNITS / service)["ExecStart"]
        program, *_, config = command.split()
        assert "ln -sfn /opt/fedfab/current/bin/fedfab" in installer
        assert program == "/opt/fedfab/current/bin/fedfab"
        assert config.startswith("/etc/fedfab/")
