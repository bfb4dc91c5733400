"""One ZIP file with what somebody who helps has to know of a gateway, and without its secrets. It never needs a running gateway.

Every piece of text goes through the redactor; keys are never opened. What cannot be had says why in its place.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib.metadata import distributions, version
from pathlib import Path

from cryptography import x509

from common.errors import FedfabError
from common.machine import summary
from gateway.config import Config
from gateway.configfile import files_of, load
from gateway.inference import client
from gateway.modelstore import ModelStore
from gateway.seeing.logs import task_logs
from gateway.seeing.reach import reach
from gateway.seeing.redact import Redactor, secrets_of
from gateway.store import Store

LINES = 500
"""Of each log, the newest."""
TASKS = 10

README = """What is in this file

version.txt          versions of fedfab and of the libraries it uses
configuration/       the configuration files; problems.txt where they cannot be used
status.json          what the gateway said of itself, metrics.txt its metrics; why there are none, if it does not run
logs/                the newest lines of its journal and of its latest tasks
store.txt            files in the data folder, and how much the store holds
models/              where each model in use comes from and how good it is
certificates.txt     names and dates of certificates; no key
system.json          the machine, its disks and its clock
connection.txt       whether the coordinator can be reached, step by step

There is no value of a machine in it. Secrets are replaced by [redacted]: those named in the configuration, those in environment
variables, and whatever looks like a password, token or key. Have a look yourself before you hand it on.
"""


def diagnose(file: Path, out: Path | None) -> tuple[Path, list[str]]:
    """Write the bundle for the gateway of this configuration file; its path, and what was found in a few lines.

    Raises OSError where ``out`` cannot be written.
    """
    problem, config = "", None
    try:
        config = load(file)
    except FedfabError as error:
        problem = str(error)
    redact = Redactor(secrets_of(config))
    name = config.gateway.name if config else "gateway"
    out = out or Path(f"fedfab-{name}-{time.strftime('%Y%m%d-%H%M%S')}.zip")
    told: list[str] = []
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened, zipfile.ZipFile(opened, "w", zipfile.ZIP_DEFLATED) as bundle:
        for path, make in _pieces(file, config, problem):
            try:
                text = make()
            except Exception as error:  # whatever is broken here is what the bundle is for
                text = f"not available: {error}\n"
                told.append(redact(f"{path}: {text.strip()}".splitlines()[0]))
            bundle.writestr(path, redact(text))
            if path == "connection.txt":
                told += redact(text).splitlines()
    return out, told


def _pieces(file: Path, config: Config | None, problem: str) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "README.txt", lambda: README
    yield "version.txt", _versions
    for each in files_of(file):
        yield f"configuration/{each.relative_to(file.parent)}", each.read_text
    if problem:
        yield "configuration/problems.txt", lambda: problem
    yield "system.json", lambda: json.dumps(_system(config), indent=1)
    yield "logs/journal.txt", _journal
    if config is None:
        return
    yield "status.json", lambda: json.dumps(client.status(config), indent=1)
    yield "metrics.txt", lambda: client.get(config, "/metrics").decode()
    logs = task_logs(config)
    for kept in logs.all()[:TASKS]:
        yield f"logs/{kept.task}.jsonl", lambda task=kept.task: _newest(logs.lines(task))  # type: ignore[misc]
    yield "store.txt", lambda: _store(config)
    models = ModelStore(config.gateway.data_dir / "models")
    for name in models.names():
        in_use = models.in_use(name)
        number = in_use.version if in_use else models.versions(name)[-1]
        yield f"models/{name}.json", lambda it=(name, number): models.evidence(*it).model_dump_json(indent=1)  # type: ignore[misc]
    yield "certificates.txt", lambda: _certificates(config)
    yield "connection.txt", lambda: asyncio.run(_connection(config))


def _versions() -> str:
    found = sorted({f"{each.name} {each.version}" for each in distributions() if each.name}, key=str.lower)
    return f"fedfab {version('fedfab')}\nPython {platform.python_version()}\n\n" + "\n".join(found) + "\n"


def _system(config: Config | None) -> dict[str, object]:
    folder = config.gateway.data_dir if config and config.gateway.data_dir.is_dir() else Path("/")
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return {
        "system": platform.platform(),
        "distribution": release.get("PRETTY_NAME", ""),
        "machine": platform.machine(),
        "time": time.strftime("%FT%T%z"),
        **summary(folder),
    }


def _journal() -> str:
    command = ["journalctl", "--unit=fedfab-gateway*", f"--lines={LINES}", "--no-pager", "--output=short-iso-precise"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout or done.stderr


def _newest(lines: Iterator[bytes]) -> str:
    return b"".join(list(lines)[-LINES:]).decode(errors="replace")


def _store(config: Config) -> str:
    lines = []
    for path in sorted(config.gateway.data_dir.rglob("*")):
        if path.is_file():
            lines.append(f"{path.stat().st_size:>15,}  {path.relative_to(config.gateway.data_dir)}")
    try:
        with Store.open(config.gateway.store, read_only=True) as store:
            held = json.dumps(store.counts(), indent=1)
    except FedfabError as error:
        held = str(error)
    return "\n".join([held, "", "files in bytes", *lines]) + "\n"


def _certificates(config: Config) -> str:
    found = [config.inference.certificate, config.inference.client_ca]
    if config.trust is not None:
        found += sorted(config.trust.identity.glob("*.crt"))
    return "\n".join(_certificate(path) for path in found if path is not None) + "\n"


def _certificate(path: Path) -> str:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        return f"{path}: {error}"
    return "\n".join(
        f"{path}: {each.subject.rfc4514_string()}; issued by {each.issuer.rfc4514_string()}; "
        f"{each.not_valid_before_utc:%F %T} to {each.not_valid_after_utc:%F %T} UTC; serial {each.serial_number:x}"
        for each in found
    )


async def _connection(config: Config) -> str:
    return "".join([f"{step}\n" async for step in reach(config)])
