"""A foreign OPC UA server, node-opcua, as a process for one test."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.conftest import free_port, missing, need_program
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

    def set_status(self, name: str, status: str) -> None:
        self._command({"set": name, "status": status})

    def _command(self, command: Mapping[str, object]) -> None:
        assert self._process is not None
        self._process.ask(json.dumps(command))

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


def make_certificate(folder: Path, name: str, uri: str) -> None:
    """A self-signed application certificate after OPC UA Part 6, 6.2.2: name.der, name.pem and name.key."""
    folder.mkdir(parents=True, exist_ok=True)
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri), x509.DNSName(socket.gethostname())]
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / f"{name}.der").write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / f"{name}.key").chmod(0o600)
