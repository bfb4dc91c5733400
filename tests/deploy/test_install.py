"""The scripts themselves: clean for shellcheck, and clear about what they would do and what they cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, need_program

INSTALL = ROOT / "deploy" / "install.sh"


def install(*options: str | Path, status: int = 0) -> str:
    done = subprocess.run([INSTALL, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "fedfab-1.2.3-py3-none-any.whl").write_text("a wheel")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    return folder


@pytest.mark.server("shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    program = need_program("shellcheck", "apt-get install shellcheck")
    scripts = [INSTALL, ROOT / "deploy/wheels", *(each for each in (ROOT / "deploy/deb").iterdir())]
    done = subprocess.run([program, *scripts], stdout=subprocess.PIPE, text=True, check=False)
    assert done.stdout == ""


def test_a_dry_run_names_every_step_and_does_none(root: Path, wheels: Path) -> None:
    before = sorted(root.rglob("*"))
    said = install("--dry-run", "--root", root, "--wheels", wheels)
    for step in (
        "useradd --prefix",
        f"-m venv {root}/opt/fedfab/versions/1.2.3",
        "--no-index",
        f"mv -T {root}/opt/fedfab/current.new",
    ):
        assert step in said
    assert sorted(root.rglob("*")) == before


def test_an_uninstall_keeps_configuration_and_data_unless_told(root: Path) -> None:
    for kept in ("etc/fedfab/gateway.toml", "var/lib/fedfab/store.db", "opt/fedfab/versions/1/whole"):
        (root / kept).parent.mkdir(parents=True)
        (root / kept).touch()
    said = install("--uninstall", "--root", root)
    assert f"kept: {root}/etc/fedfab" in said
    assert (root / "etc/fedfab/gateway.toml").exists()
    assert (root / "var/lib/fedfab/store.db").exists()
    assert not (root / "opt/fedfab").exists()
    install("--uninstall", "--purge", "--root", root)
    assert not (root / "etc/fedfab").exists()
    assert not (root / "var/lib/fedfab").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--purge"], "--purge goes with --uninstall"),
        (["--wheels"], "--wheels needs a folder"),
        (["--wheels", "/nowhere"], "--wheels /nowhere: there is no such folder"),
        (["--colour"], "unknown option --colour; --help lists them"),
    ],
)
def test_wrong_options(options: list[str], said: str) -> None:
    assert f"fedfab: error: {said}" in install(*options, status=1)


def test_two_releases_in_one_folder_are_refused(root: Path, wheels: Path) -> None:
    (wheels / "fedfab-1.2.4-py3-none-any.whl").write_text("another")
    assert "expected one wheel fedfab-VERSION" in install("--root", root, "--wheels", wheels, status=1)
    assert not (root / "opt").exists()


def test_no_version_to_go_back_to(root: Path) -> None:
    assert "there is no version before the first" in install("--rollback", "--root", root, status=1)


def test_an_installation_that_breaks_off_leaves_what_was_in_use(root: Path, wheels: Path) -> None:
    """The wheel is none, so pip fails half-way."""
    in_use = root / "opt/fedfab/versions/1.0"
    in_use.mkdir(parents=True)
    (root / "opt/fedfab/current").symlink_to("versions/1.0")
    said = install("--root", root, "--wheels", wheels, status=1)
    assert "installing into" in said
    assert (root / "opt/fedfab/current").readlink() == Path("versions/1.0")
    assert not (root / "opt/fedfab/versions/1.2.3/whole").exists()
