"""The real daemon on a disk that is full or read-only, at its start and later: a small file system of its own, in a mount namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.store import Store
from tests.conftest import missing, need_program
from tests.gateway.running import Daemon
from tests.gateway.served import draft, onnx_model

pytestmark = pytest.mark.e2e

WINDOW = {"inputs": [{"name": "window", "shape": [1, 3, 2], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}
USER = () if os.geteuid() == 0 else ("--user", "--map-root-user")
ROOM = "[store]\nkeep_free_gb = 0.0\n[inference]"


class SmallDisk(Daemon):
    """A gateway whose data folder is a file system of 8 MB that only its process sees."""

    def __init__(self, folder: Path, then: str = "true") -> None:
        (folder / "data").mkdir()
        mount = 'cd "$0" && mount -t tmpfs -o size=8m none data && cp -r models data/'
        script = f'{mount} && {{ {then}; cd "$1" && shift && exec "$@"; }}'
        within = [need_program("unshare", "apt-get install util-linux"), "--mount", *USER, "sh", "-c", script]
        super().__init__(folder, within=[*within, str(folder), str(Path.cwd())])
        self.edit("[inference]", ROOM)
        self.models.add("old", draft(), onnx_model(add=0.0))
        self.models.promote("old", 1, "yesterday")
        shutil.move(folder / "data" / "models", folder / "models")

    @property
    def data(self) -> Path:
        """The data folder as the process sees it."""
        return Path(f"/proc/{self.pid}/root{self.folder}/data")

    def fill(self) -> None:
        with (self.data / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def inside(self, *words: str) -> None:
        user = ("--user", "--preserve-credentials") if USER else ()
        subprocess.run(["nsenter", "--mount", *user, "--target", str(self.pid), *words], check=True)

    def predicts(self) -> bool:
        return self.ask("/v2/models/old/infer", WINDOW)[0] == 200


@pytest.fixture(autouse=True)
def namespaces() -> None:
    tried = subprocess.run(
        ["unshare", "--mount", *USER, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    if tried.returncode:
        missing("no mount namespaces for this user")


def test_a_disk_that_fills_up_loses_nothing_and_stops_no_prediction(tmp_path: Path) -> None:
    daemon = SmallDisk(tmp_path)
    try:
        daemon.plant.write(rows=50)
        daemon.start()
        daemon.wait_for_rows(45)
        daemon.fill()
        for _ in range(3):
            daemon.plant.write(rows=300)
        status = daemon.wait_for(lambda status: status["store_trouble"])
        assert "FF-STORE-006" in status["store_trouble"]
        assert daemon.predicts()
        (daemon.data / "filler").unlink()
        status = daemon.wait_for(lambda status: status["sources"][0]["readings"] >= 4 * 950)
        assert status["store_trouble"] is None
        assert (status["sources"][0]["readings"], status["sources"][0]["reconnects"]) == (4 * 950, 0)
        daemon.inside("cp", "-r", str(tmp_path / "data"), str(tmp_path / "copy"))
        with Store.open(tmp_path / "copy" / "store.db") as store:
            assert sorted(sample.value for sample in store.read_raw("press", tags={"cycle"})) == list(range(950))
        assert daemon.stop() == 0, daemon.words()
        for sentence in ("store cannot be written, sources wait", "store can be written again"):
            assert daemon.words().count(sentence) == 1, daemon.words()
    finally:
        daemon.kill()


@pytest.mark.parametrize(
    ("trouble", "relief"),
    [
        ("dd if=/dev/zero of=data/filler bs=4k 2>/dev/null", ("rm", "data/filler")),
        ("mount -o remount,ro data", ("mount", "-o", "remount,rw", "data")),
    ],
    ids=["full", "read-only"],
)
def test_a_gateway_that_starts_without_room_serves_and_reads_once_there_is(
    tmp_path: Path, trouble: str, relief: tuple[str, ...]
) -> None:
    daemon = SmallDisk(tmp_path, trouble)
    try:
        daemon.plant.write(rows=50)
        daemon.launch()
        assert "STATUS=serving only, the store cannot be opened" in daemon.told("READY=1")
        assert daemon.predicts()
        assert daemon.status()["store_trouble"]
        assert daemon.ask("/v2/models/old/infer", {"parameters": {"end": "spindle-1"}})[0] >= 400
        *command, path = relief
        daemon.inside(*command, str(tmp_path / path))
        daemon.told("READY=1")
        daemon.wait_for_rows(45)
        assert daemon.predicts()
        assert daemon.stop() == 0, daemon.words()
        assert daemon.words().count("store cannot be opened") == 1, daemon.words()
    finally:
        daemon.kill()


def test_told_to_stop_while_it_waits_for_the_disk_it_stops(tmp_path: Path) -> None:
    daemon = SmallDisk(tmp_path, "mount -o remount,ro data")
    try:
        daemon.start()
        assert daemon.stop() == 0, daemon.words()
    finally:
        daemon.kill()


def test_a_folder_that_can_never_be_is_refused_in_one_sentence(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    try:
        daemon.edit('data_dir = "data"', 'data_dir = "gateway.toml/data"')
        refused = daemon.command("run")
        assert refused.returncode == 2
        assert "FF-STORE-006" in refused.stderr
        assert "Not a directory" in refused.stderr
        assert "Traceback" not in refused.stderr
    finally:
        daemon.kill()
