"""Atomic files: whole or absent, private where asked, the old one kept on failure."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from common.files import claimed, erase, write_atomic


def test_replaces_the_whole_file_with_the_mode_asked(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    write_atomic(path, b"old")
    write_atomic(path, b"new", mode=0o600)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["site.key"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


@pytest.mark.clause("9.4.1.1f")
def test_what_is_erased_was_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    write_atomic(folder / "deep" / "update", b"\x01" * (3 << 20))
    write_atomic(folder / "state", b"secret")
    kept = tmp_path / "kept"
    kept.write_bytes(b"not inside")
    (folder / "link").symlink_to(kept)
    opened = [(folder / "deep" / "update").open("rb"), (folder / "state").open("rb")]
    erase(folder)
    assert not folder.exists()
    assert [set(file.read()) for file in opened] == [{0}, {0}]
    assert kept.read_bytes() == b"not inside"
    erase(folder)


def test_a_claim_is_for_one_at_a_time_and_ends_with_its_owner(tmp_path: Path) -> None:
    lock = tmp_path / "task.lock"
    lines = (
        "import sys, time, pathlib",
        "from common.files import claimed",
        "with claimed(pathlib.Path(sys.argv[1])): print(flush=True); time.sleep(60)",
    )
    with subprocess.Popen([sys.executable, "-c", "\n".join(lines), str(lock)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(BlockingIOError), claimed(lock):
            pass
        other.kill()
    with claimed(lock), pytest.raises(BlockingIOError), claimed(lock):
        pass
