"""The gateway's daemon as a process of its own, told and listened to the way systemd does it, over a database that a machine writes."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from gateway.modelstore import ModelStore
from tests.conftest import ROOT, free_port

CONFIG = """
[gateway]
name = "gateway-a"
data_dir = "data"

[inference]
listen = "127.0.0.1:{port}"
{extra}

[[source]]
name = "press"
type = "sql"
url = "sqlite:///{plant}"
table = "readings"
cursor = "id"
time = "at"
time_unit = "ms"
every_s = 0.2

[[source.tag]]
name = "vibration"
column = "vibration"
unit = "mm/s"
[[source.tag]]
name = "temperature"
column = "temperature"
unit = "degC"
[[source.tag]]
name = "wear"
column = "wear"
unit = "um"
[[source.tag]]
name = "cycle"
column = "cycle"

[[cluster]]
name = "spindles"
rows = {{ on_change = "cycle", wait_s = 0.0 }}
label = {{ field = "wear" }}
[[cluster.field]]
name = "vibration"
unit = "mm/s"
[[cluster.field]]
name = "temperature"
unit = "degC"
[[cluster.field]]
name = "wear"
unit = "um"
role = "aux"
[[cluster.field]]
name = "cycle"
role = "aux"

[[end]]
name = "spindle-1"
cluster = "spindles"
tags = {{ vibration = "press/vibration", temperature = "press/temperature", wear = "press/wear", cycle = "press/cycle" }}
"""


class Plant:
    """A table that a machine writes; rows appear in one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[int, int, float, float, float, int]] = []

    def write(self, rows: int) -> None:
        with sqlite3.connect(self.path) as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, at, vibration, temperature, wear, cycle)"
            )
            start = len(self.rows)
            begin_ms = time.time_ns() // 1_000_000 - rows * 100
            if self.rows:  # its clock never goes back
                begin_ms = max(begin_ms, self.rows[-1][1] + 100)
            for i in range(start, start + rows):
                wear = (i % 50) / 50
                at_ms = begin_ms + (i - start) * 100
                self.rows.append((i + 1, at_ms, 2 + 6 * wear, 40 + 30 * wear, 100 * wear, i))
            database.executemany("INSERT INTO readings VALUES (?, ?, ?, ?, ?, ?)", self.rows[start:])
        database.close()


class Daemon:
    """One gateway in ``folder``: its file, its plant, and its process from `start` to `stop`."""

    def __init__(self, folder: Path, *, extra: str = "", tail: str = "", within: Sequence[str] = ()) -> None:
        self.folder = folder
        self.within = within
        """A command that runs the daemon as its last arguments."""
        self.plant = Plant(folder / "plant.db")
        self.port = free_port()
        self.config = folder / "gateway.toml"
        self.config.write_text(CONFIG.format(port=self.port, plant=self.plant.path, extra=extra) + tail)
        self.models = ModelStore(folder / "data" / "models")
        self.log = (folder / "log").open("wb")
        self.process: subprocess.Popen[bytes] | None = None
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(folder / "notify"))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def launch(self, **environment: str) -> None:
        """Start the process and do not wait for it."""
        self.process = subprocess.Popen(
            [*self.within, sys.executable, "-m", "cli.main", "gateway", "run", "-c", str(self.config)],
            cwd=ROOT, stderr=self.log, env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), **environment},
        )  # fmt: skip

    def start(self, **environment: str) -> None:
        """Start the process and wait until it is ready."""
        self.launch(**environment)
        self.told("READY=1")

    def told(self, word: str, seconds: float = 60.0) -> str:
        """Wait until systemd would be told this; the whole notice. What else it is told meanwhile is passed over."""
        assert self.process is not None
        self.notices.settimeout(0.5)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                notice = self.notices.recv(4096).decode()
            except TimeoutError:
                assert self.process.poll() is None, self.words()
                continue
            if word in notice:
                return notice
        raise AssertionError(f"{word} was not said\n{self.words()}")

    def reload(self) -> dict[str, Any]:
        """SIGHUP; what the status says of the configuration when that is done."""
        os.kill(self.pid, signal.SIGHUP)
        self.told("RELOADING=1")
        self.told("READY=1")
        return self.status()["configuration"]

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text
        self.config.write_text(text.replace(old, new))

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(40)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.notices.close()

    def words(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(f"http://127.0.0.1:{self.port}{path}", data=data), timeout=10) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            return error.code, json.load(error)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("/status")[1]
        return found

    def wait_for(self, what: Callable[[dict[str, Any]], object], seconds: float = 40.0) -> dict[str, Any]:
        """Wait until the status is so."""
        deadline = time.monotonic() + seconds
        while not what(status := self.status()):
            assert time.monotonic() < deadline, (status, self.words())
            time.sleep(0.05)
        return status

    def wait_for_rows(self, rows: int) -> None:
        self.wait_for(lambda status: status["ends"][0]["rows"] >= rows)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", "gateway", *words, "-c", str(self.config)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def source_of(status: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the status says of one source."""
    (found,) = (source for source in status["sources"] if source["name"] == name)
    return found
