"""The real daemon as a process of its own: started, timed until it says READY, weighed, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, Self

import psutil

START_S = 60.0
STOP_S = 60.0


class Usage(NamedTuple):
    """What a process has used up to a moment."""

    wall_s: float
    cpu_s: float
    rss_mb: float
    uss_mb: float


class Daemon:
    """`with Daemon(folder) as daemon:` runs `fedfab gateway run` on ``folder``/gateway.toml; it has said READY then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ready_s = 0.0
        """Wall time from the start of the process to READY."""
        self.ready_cpu_s = 0.0

    def __enter__(self) -> Self:
        notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with notices:
            notices.bind(str(self._folder / "notify"))
            notices.settimeout(0.2)
            command = [Path(sys.executable).with_name("fedfab"), "gateway", "run", "-c", self._folder / "gateway.toml"]
            began = time.perf_counter()
            with open(self._folder / "daemon.log", "wb") as log:
                self._process = subprocess.Popen(
                    command, stderr=log, stdout=log, env=os.environ | {"NOTIFY_SOCKET": str(self._folder / "notify")}
                )
            while not _ready(notices):
                if self._process.poll() is not None or time.perf_counter() - began > START_S:
                    self.__exit__()
                    raise SystemExit(f"the daemon was not ready:\n{self.log()}")
            self.ready_s = time.perf_counter() - began
        self._seen = psutil.Process(self._process.pid)
        self.ready_cpu_s = self.usage().cpu_s
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        (self._folder / "notify").unlink(missing_ok=True)

    def usage(self) -> Usage:
        """Of the daemon's own process, without workers."""
        cpu, memory = self._seen.cpu_times(), self._seen.memory_full_info()
        return Usage(time.monotonic(), cpu.user + cpu.system, memory.rss / 1e6, memory.uss / 1e6)

    def children_mb(self) -> float:
        """Memory of the processes it has started, MB."""
        return sum(child.memory_full_info().uss for child in self._seen.children(recursive=True)) / 1e6

    def log(self) -> str:
        """What it has said."""
        return (self._folder / "daemon.log").read_text()


def _ready(notices: socket.socket) -> bool:
    try:
        return b"READY=1" in notices.recv(4096)
    except TimeoutError:
        return False
