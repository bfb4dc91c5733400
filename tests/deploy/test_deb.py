"""The life of the package on a box without any network: install, configure, upgrade, refuse, roll back, remove, purge.

This is the real package with all wheels, on a copy of this machine under a systemd of its own (see `box`). It takes about two minutes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, missing, need_program
from tests.deploy.box import Box, box

pytestmark = pytest.mark.e2e


def build(tree: Path, into: Path, wheels: Path, *options: str) -> Path:
    """The package of a source tree, of wheels gathered in ``wheels``."""
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run([tree / "deploy/wheels", wheels, *options], env=environment, check=True)
    subprocess.run([tree / "deploy/deb/build", into, "--wheels", wheels], check=True)
    (deb,) = into.glob(f"fedfab_{re.search('fedfab-([^-]+)', next(wheels.glob('fedfab-*')).name)[1]}_*.deb")  # type: ignore[index]
    return deb


def next_version(folder: Path) -> Path:
    """This source tree with a later version."""
    copy = ["tar", "-C", str(ROOT), "--exclude=./.*", "--exclude=./bench", "--exclude=./tests", "-cf", "-", "."]
    with subprocess.Popen(copy, stdout=subprocess.PIPE) as tar:
        folder.mkdir()
        subprocess.run(["tar", "-C", folder, "-xf", "-"], stdin=tar.stdout, check=True)
    project = folder / "pyproject.toml"
    text, changed = re.subn(r'^version = ".*"', 'version = "77.0"', project.read_text(), flags=re.MULTILINE)
    assert changed == 1
    project.write_text(text)
    return folder


def kept(machine: Box) -> str:
    """Digests of all that a person wrote, and which file the store is."""
    files = machine.shell("cd / && find etc/fedfab -type f | sort | xargs sha256sum")
    return files + machine.run("stat", "-c", "%n %i", "/var/lib/fedfab/gateway/store.db")


def running(machine: Box) -> tuple[str, str]:
    """Version and process of the gateway at work."""
    status = json.loads(machine.run("fedfab", "gateway", "status", "--json", "-c", "/etc/fedfab/gateway.toml"))
    pid = machine.run("systemctl", "show", "--value", "--property=MainPID", "fedfab-gateway").strip()
    assert status["pid"] == int(pid)
    return status["version"], pid


def test_install_upgrade_roll_back_and_remove_without_a_network(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("an installation needs root")
    for program in ("dpkg-deb", "unshare", "nsenter", "systemctl"):
        need_program(program, "apt-get install dpkg-dev util-linux systemd")
    if not list(Path("/usr/share/python-wheels").glob("pip-*.whl")):
        missing("the package python3-venv is not installed: apt-get install python3-venv")
    shared, place = tmp_path / "shared", tmp_path / "box"
    shared.mkdir()
    place.mkdir()
    first = build(ROOT, shared, tmp_path / "wheels")
    second = build(next_version(tmp_path / "next"), shared, tmp_path / "more", "--from", str(tmp_path / "wheels"))
    release = first.name.split("_")[1]
    roll_back = ("/opt/fedfab/current/install.sh", "--rollback")

    with box(place, shared) as machine:
        assert "unreachable" in machine.shell("exec 3<>/dev/tcp/192.0.2.1/80", fails=True)

        said = machine.run("dpkg", "--install", f"/box/{first.name}")
        assert f"done: fedfab {release} is in use" in said
        assert "nothing is configured yet, so nothing was started" in said
        assert machine.run("fedfab", "version").startswith(f"fedfab {release}\n")
        owners = machine.run("stat", "-c", "%a %U %G", "/etc/fedfab", "/var/lib/fedfab")
        assert owners == "750 root fedfab\n750 fedfab fedfab\n"
        services = ("fedfab.target", "fedfab-gateway", "fedfab-coordinator")
        assert machine.run("systemctl", "is-enabled", *services).split() == ["enabled"] * 3

        machine.run("fedfab", "gateway", "init", "/etc/fedfab", "--data-dir", "/var/lib/fedfab/gateway")
        machine.shell("sed -i 's|127.0.0.1:4840|${PLC}:4840|; 1i # ours' /etc/fedfab/gateway.toml")
        machine.shell("echo PLC=127.0.0.1 >> /etc/fedfab/environment")
        machine.run("systemctl", "start", "fedfab-gateway")
        version, process = running(machine)
        assert version == release
        before = kept(machine)

        machine.shell("echo 'unknown = 1' > /etc/fedfab/conf.d/wrong.toml")
        said = machine.run("dpkg", "--install", f"/box/{second.name}", fails=True)
        assert 'conf.d/wrong.toml:1: unknown option "unknown"' in said
        assert f"the configuration does not pass with fedfab 77.0, so {release} stays in use" in said
        machine.run("rm", "/etc/fedfab/conf.d/wrong.toml")
        assert running(machine) == (release, process), "the old one never stopped"

        said = machine.run("dpkg", "--configure", "fedfab")
        assert "versions/77.0 is there already" in said
        assert running(machine)[0] == "77.0"
        assert kept(machine) == before
        assert f"-{release}.tar.gz" in (saved := machine.run("ls", "/var/backups/fedfab"))
        assert "fedfab/gateway.toml" in machine.run("tar", "-tzf", f"/var/backups/fedfab/{saved.split()[0]}")

        machine.run("cp", "/etc/fedfab/gateway.toml", "/root")
        machine.shell("sed -i 's/^version = .*/version = 99/' /etc/fedfab/gateway.toml")
        said = machine.run(*roll_back, fails=True)
        assert "FF-CONFIG-005" in said
        assert f"does not pass with fedfab {release}, so 77.0 stays in use" in said
        machine.run("cp", "/root/gateway.toml", "/etc/fedfab/gateway.toml")
        assert f"done: fedfab {release} is in use" in machine.run(*roll_back)
        assert running(machine)[0] == release
        assert kept(machine) == before

        broken = "[Service]\nExecStartPre=/bin/sh -c 'test $$(readlink /opt/fedfab/current) != versions/77.0'\n"
        machine.shell(
            "mkdir /etc/systemd/system/fedfab-gateway.service.d; cat > /etc/systemd/system/fedfab-gateway.service.d/a.conf"
            f" <<'END'\n{broken}END"
        )
        said = machine.run(*roll_back, fails=True)
        assert (
            f"fedfab-gateway does not start with fedfab 77.0 (journalctl -u fedfab-gateway), so {release} is in use again"
            in said
        )
        assert running(machine)[0] == release
        assert kept(machine) == before

        machine.run("dpkg", "--remove", "fedfab")
        machine.run("systemctl", "is-active", "fedfab-gateway", fails=True)
        machine.run("test", "-e", "/opt/fedfab", fails=True)
        machine.run("test", "-L", "/usr/local/bin/fedfab", fails=True)
        assert kept(machine) == before

        machine.run("dpkg", "--purge", "fedfab")
        for folder in ("/opt/fedfab", "/etc/fedfab", "/var/lib/fedfab", "/var/backups/fedfab"):
            machine.run("test", "-e", folder, fails=True)
        machine.run("id", "fedfab", fails=True)
