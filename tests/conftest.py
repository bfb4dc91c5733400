"""What all tests share: foreign servers on free loopback ports, and the reference data beside the project."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(reason: str) -> None:
    """Skip for want of something on this machine, or fail where the checks require it to be there."""
    if os.environ.get("FEDFAB_REQUIRE_SERVERS") == "1":
        pytest.fail(f"required here, but {reason}")
    pytest.skip(reason)


def need_program(name: str, hint: str) -> str:
    """Path of a program the test needs, looked for on PATH and where Debian hides servers."""
    folders = os.environ.get("PATH", "") + ":/usr/sbin:" + ":".join(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    found = shutil.which(name, path=folders)
    if found is None:
        missing(f"the program {name} is not installed: {hint}")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real industrial data sets: FEDFAB_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("FEDFAB_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        missing(f"no data folder at {folder}; set FEDFAB_DATA")
    return folder
