"""A foreign OPC UA server, node-opcua, as a process for one test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.conftest import free_port, missing, need_program
from tests.servers.certificates import make_certificate
from tests.servers.process import LineServer

_FOLDER = Path(__file__).parent / "node-opcua"


@dataclass
class OpcUaServer:
    """`with OpcUaServer(folder) as server:` runs it; `stop()` and `start()` restart it on the same port."""

    folder: Path
    secure: bool = False
    users: Mapping[str, str] | None = None
    tags: int = 0
    trusted: tuple[Path, ...] = ()
    """Client certificates in DER that a secure server accepts; all others are refused."""
    port: int = field(default_factory=free_port)
    _process: LineServer | None = None

    @property
    def endpoint(self) -> str:
        return f"opc.tcp://127.0.0.1:{self.port}/plant"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.der"

    def start(self) -> None:
        node = need_program("node", "sudo apt-get install nodejs npm; make servers")
        if not (_FOLDER / "node_modules" / "node-opcua").is_dir():
            missing("node-opcua is not installed: make servers")
        options: dict[str, Any] = {"port": self.port, "tags": self.tags, "secure": self.secure, **self._identity()}
        if self.users is not None:
            options["users"] = dict(self.users)
        self._process = LineServer([node, "server.js", json.dumps(options)], _FOLDER)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def pause(self) -> None:
        """Hang: the connection stays, nothing is answered any more."""
        assert self._process is not None
        self._process.pause()

    def set(self, name: str, *values: object) -> None:
        """Give a variable each of these values, one change after the other."""
        self._command({"set": name, "values": values})

    def sweep(self, value: float) -> None:
        """Change every one of the ``tags`` variables Tag0, Tag1, ... once."""
        self._command({"sweep": value})

    def run(self, rate: int) -> None:
        """From now on ``rate`` changes a second, of Tag0, Tag1, ... in turn: to -1 each, then to -2 each, and so on."""
        self._command({"run": rate})

    def halt(self) -> int:
        """End `run`. How many changes there were."""
        return int(self._command({"halt": True}))

    def sessions(self) -> list[int]:
        """Sessions there ever were, subscriptions there ever were, subscriptions there are."""
        found: list[int] = json.loads(self._command({"sessions": True}))
        return found

    def set_status(self, name: str, status: str) -> None:
        self._command({"set": name, "status": status})

    def _command(self, command: Mapping[str, object]) -> str:
        assert self._process is not None
        return self._process.ask(json.dumps(command))

    def _identity(self) -> dict[str, str]:
        if not self.certificate.exists():
            make_certificate(self.folder, "server", "urn:fedfab:test:server")
        folder = self.folder / "pki" / "trusted" / "certs"
        folder.mkdir(parents=True, exist_ok=True)
        for client in self.trusted:
            (folder / client.name).write_bytes(client.read_bytes())
        return {
            "pki": str(self.folder / "pki"),
            "certificate": str(self.folder / "server.pem"),
            "key": str(self.folder / "server.key"),
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
