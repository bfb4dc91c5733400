"""Real database servers, MariaDB and PostgreSQL, each with a folder of its own, as processes for the tests of one module.

Both refuse to run as root, so under root they run as the accounts that their Debian packages bring.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import ClassVar, Self

import psycopg
import pymysql

from tests.conftest import free_port, missing, need_program
from tests.servers.certificates import make_certificate

READER, PASSWORD = "reader", "S3cret/of:reader@x"
"""The account connectors use. It may write, so that a test can show that a connector does not; the password needs care in a URL."""


class DatabaseServer(ABC):
    """`with MariaDb() as server:` runs it; `stop()` and `start()` restart it on the same port with the same data."""

    account: ClassVar[str]
    """Runs the server where the test runs as root."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(
            mkdtemp(prefix="fedfab-db-", dir="/tmp")
        )  # short: a socket's path has 107 characters at most
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def certificate(self) -> Path:
        """The server's own, self-signed; it offers TLS beside plain connections."""
        return self.folder / "server.pem"

    @property
    @abstractmethod
    def url(self) -> str:
        """Of the database `plant` for the reader, without password."""

    @abstractmethod
    def execute(self, *statements: str) -> None:
        """Run statements in `plant` as the administrator."""

    @abstractmethod
    def _install(self) -> None:
        """Make the files of an empty server."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """What starts the server."""

    @abstractmethod
    def _admit(self) -> None:
        """Make the database and the reader."""

    @abstractmethod
    def _ping(self) -> bool:
        """Whether the server answers."""

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user(),
            group=self._user(),
        )
        deadline = time.monotonic() + 60
        while not self._ping():
            assert self._process.poll() is None, f"{self._command()[0]} has ended"
            assert time.monotonic() < deadline, f"{self._command()[0]} does not answer"
            time.sleep(0.05)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, user=self._user(), group=self._user(), cwd=self.folder)

    def _user(self) -> str | None:
        return self.account if os.getuid() == 0 else None

    def __enter__(self) -> Self:
        if os.getuid() == 0:
            try:
                shutil.chown(self.folder, self.account)
            except LookupError:
                missing(f"there is no account {self.account}: make servers")
        make_certificate(self.folder, "server", "urn:fedfab:test:database")
        if user := self._user():
            for file in self.folder.glob("server.*"):
                shutil.chown(file, user)
        self._install()
        self.start()
        self._admit()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class MariaDb(DatabaseServer):
    """MySQL's wire and dialect."""

    account = "mysql"
    _hint = "sudo apt-get install mariadb-server, or make servers"

    @property
    def url(self) -> str:
        return f"mysql+pymysql://{READER}@127.0.0.1:{self.port}/plant"

    def execute(self, *statements: str) -> None:
        self._administer("plant", statements)

    def _install(self) -> None:
        self._run(
            need_program("mariadb-install-db", self._hint),
            "--no-defaults",
            f"--datadir={self.folder}/data",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def _command(self) -> Sequence[str]:
        return [
            need_program("mariadbd", self._hint),
            "--no-defaults",
            f"--datadir={self.folder}/data",
            f"--socket={self.folder}/socket",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=16M",
            "--skip-name-resolve",
            f"--ssl-cert={self.certificate}",
            f"--ssl-key={self.folder}/server.key",
        ]

    def _admit(self) -> None:
        self._administer(
            None,
            [
                "CREATE DATABASE plant",
                f"CREATE USER '{READER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'",
                f"GRANT SELECT, INSERT ON plant.* TO '{READER}'@'127.0.0.1'",
            ],
        )

    def _ping(self) -> bool:
        try:
            self._administer(None, [])
        except pymysql.MySQLError:
            return False
        return True

    def _administer(self, database: str | None, statements: Sequence[str]) -> None:
        connection = pymysql.connect(
            unix_socket=f"{self.folder}/socket", user="root", database=database, autocommit=True
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


class PostgreSql(DatabaseServer):
    """PostgreSQL."""

    account = "postgres"
    _hint = "sudo apt-get install postgresql, or make servers"

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{READER}@127.0.0.1:{self.port}/plant"

    def execute(self, *statements: str) -> None:
        self._administer("plant", statements)

    def _install(self) -> None:
        self._run(
            need_program("initdb", self._hint),
            "--no-sync",
            "--username=postgres",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            f"--pgdata={self.folder}/data",
        )

    def _command(self) -> Sequence[str]:
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(self.certificate),
            "ssl_key_file": f"{self.folder}/server.key",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [need_program("postgres", self._hint), "-D", f"{self.folder}/data", "-p", str(self.port), *settings]

    def _admit(self) -> None:
        self._administer("postgres", [f"CREATE ROLE {READER} LOGIN PASSWORD '{PASSWORD}'", "CREATE DATABASE plant"])
        self.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {READER}")

    def _ping(self) -> bool:
        try:
            self._administer("postgres", [])
        except psycopg.OperationalError:
            return False
        return True

    def _administer(self, database: str, statements: Sequence[str]) -> None:
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname=database, autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())
