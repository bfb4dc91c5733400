"""A foreign Modbus TCP server, written in C on libmodbus and compiled by the test, as a process for one test."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.conftest import free_port, missing, need_program
from tests.servers.process import LineServer

_SOURCE = Path(__file__).parent / "libmodbus" / "server.c"


@dataclass
class ModbusServer:
    """`with ModbusServer(folder) as server:` compiles and runs it; `stop()` and `start()` restart it on the same port."""

    folder: Path
    port: int = field(default_factory=free_port)
    _process: LineServer | None = None

    def start(self) -> None:
        program = self.folder / "modbus-server"
        if not program.exists():
            gcc = need_program("gcc", "sudo apt-get install gcc libmodbus-dev")
            if not Path("/usr/include/modbus/modbus.h").exists():
                missing("libmodbus-dev is not installed: make servers")
            subprocess.run(
                [gcc, "-O1", "-Wall", "-I/usr/include/modbus", _SOURCE, "-o", program, "-lmodbus"], check=True
            )
        self._process = LineServer([program, str(self.port)])

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def pause(self) -> None:
        """Hang: the connections stay, nothing is answered any more."""
        assert self._process is not None
        self._process.pause()

    def set(self, table: str, address: int, *values: int) -> None:
        """Write consecutive registers or bits: holding, input, coil or discrete."""
        for place, value in enumerate(values, address):
            self.tell(f"{table} {place} {value}")

    def tell(self, command: str) -> str:
        """Any command of server.c."""
        assert self._process is not None
        return self._process.ask(command)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
