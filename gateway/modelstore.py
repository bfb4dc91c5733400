"""Models on disk: every version with the evidence it was judged by, which one is in use, promotion and roll-back.

    models/<name>/<version>/model.onnx      what is served, preprocessing inside
    models/<name>/<version>/evidence.json   where it comes from and how well it did, written once
    models/<name>/current                   the version in use and those before it; replaced atomically

A version appears whole or not at all, and `current` is one small file, so the daemon and the command line may both promote.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from common.files import sync_directory, write_atomic
from gateway.errors import GatewayError
from models.schema import Schema
from models.spec import TaskSpec

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

Metrics = Mapping[str, Mapping[str, float]]
"""Validation metrics of each end, by name of the end; one that its hold-out does not define is absent."""


class Spread(BaseModel):
    """How the values of one input field lay in training, in its unit."""

    model_config = ConfigDict(frozen=True)

    mean: float
    std: float
    """Population standard deviation; 1 where the field was constant."""


class Draft(BaseModel):
    """What is known of a model before it has a version."""

    model_config = ConfigDict(frozen=True)

    task: str
    task_id: str
    round: int
    """Last round that went into the parameters."""
    spec: TaskSpec
    data_schema: Schema
    params_digest: str
    """SHA-256 of the parameters it was exported from."""
    metrics: Metrics
    inputs: Mapping[str, Spread] = {}
    """Of each field, over the training windows of all who took part; versions made before this was kept have none."""
    parent: int | None = None
    """Version in use when this one was made, validated on the same hold-out; None for the first."""
    parent_metrics: Metrics = {}
    """What the parent reached there."""
    verdict: str
    """Why it was promoted, or held back."""
    promoted: bool
    autonomous: bool = False
    """An interim model: made by this gateway alone while the coordinator of its task was away."""


class Evidence(Draft):
    """A stored version and everything known of it. Never changed afterwards."""

    model: str
    version: int
    created: datetime
    model_digest: str
    """SHA-256 of ``model.onnx``."""


class InUse(BaseModel):
    """The version that is served, and those it replaced, latest last."""

    version: int
    since: datetime
    why: str
    before: tuple[int, ...] = ()


class ModelStore:
    """The models of one gateway, in ``folder``. Safe for several processes on one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        """Names of all models that have a version, in order."""
        return sorted(path.name for path in self.folder.iterdir() if path.is_dir() and self.versions(path.name))

    def versions(self, name: str) -> list[int]:
        """Versions of ``name``, oldest first; empty for a name nobody knows."""
        folder = self._folder(name)
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []

    def evidence(self, name: str, version: int) -> Evidence:
        """Evidence of a version. Raises GatewayError FF-MODELSTORE-001 when there is no such version."""
        return Evidence.model_validate_json((self._version(name, version) / "evidence.json").read_bytes())

    def model(self, name: str, version: int) -> bytes:
        """The ONNX file of a version. Raises GatewayError FF-MODELSTORE-001, or -002 when it is not what was stored."""
        data = (self._version(name, version) / "model.onnx").read_bytes()
        expected, got = self.evidence(name, version).model_digest, digest(data)
        if got != expected:
            raise GatewayError(
                "FF-MODELSTORE-002",
                f"model {name} version {version}: model.onnx has digest {got}, its evidence says {expected}",
                hint=f"the file was damaged or replaced; roll back: fedfab gateway model rollback {name}",
            )
        return data

    def in_use(self, name: str) -> InUse | None:
        """The version in use; None when nothing of that name was ever promoted."""
        try:
            return InUse.model_validate_json((self._folder(name) / "current").read_bytes())
        except FileNotFoundError:
            return None

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Changes whenever the version in use does; one `stat`, cheap enough to ask at each request."""
        try:
            status = os.stat(f"{self.folder}/{name}/current")
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_ino, status.st_mtime_ns

    def add(self, name: str, draft: Draft, model: bytes) -> Evidence:
        """Store a new version, not in use yet. The same parameters of the same task give the version they gave before."""
        with self._locked(name) as folder:
            versions = self.versions(name)
            for version in reversed(versions):
                known = self.evidence(name, version)
                if (known.task_id, known.params_digest) == (draft.task_id, draft.params_digest):
                    return known
            evidence = Evidence(
                **dict(draft),
                model=name,
                version=max(versions, default=0) + 1,
                created=datetime.now(UTC),
                model_digest=digest(model),
            )
            temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
            try:
                write_atomic(temporary / "model.onnx", model)
                write_atomic(temporary / "evidence.json", evidence.model_dump_json(indent=1).encode())
                temporary.chmod(0o755)
                temporary.rename(folder / str(evidence.version))
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_directory(folder)
            return evidence

    def promote(self, name: str, version: int, why: str) -> InUse:
        """Put a stored version in use. Raises GatewayError FF-MODELSTORE-001 when there is no such version."""
        self._version(name, version)
        with self._locked(name):
            old = self.in_use(name)
            if old is not None and old.version == version:
                return old
            return self._use(name, version, why, (*old.before, old.version) if old else ())

    def roll_back(self, name: str, why: str) -> InUse:
        """Put the version back in use that the current one replaced. Raises GatewayError FF-MODELSTORE-003 when there is none."""
        with self._locked(name):
            old = self.in_use(name)
            if old is None or not old.before:
                raise GatewayError(
                    "FF-MODELSTORE-003",
                    f"model {name}: no version was in use before "
                    + (f"version {old.version}" if old else "this; nothing has been promoted yet"),
                    hint=f"fedfab gateway model list shows what there is; promote one of {self.versions(name)}",
                )
            return self._use(name, old.before[-1], why, old.before[:-1])

    def _use(self, name: str, version: int, why: str, before: tuple[int, ...]) -> InUse:
        new = InUse(version=version, since=datetime.now(UTC), why=why, before=before)
        write_atomic(self._folder(name) / "current", new.model_dump_json(indent=1).encode())
        return new

    def _folder(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise GatewayError(
                "FF-MODELSTORE-001",
                f"{name!r} is no name of a model: expected letters, digits, '_', '.', '-'",
                hint="fedfab gateway model list shows the names",
            )
        return self.folder / name

    def _version(self, name: str, version: int) -> Path:
        folder = self._folder(name) / str(version)
        if not folder.is_dir():
            known = ", ".join(map(str, self.versions(name))) or f"no version; the models here are {self.names()}"
            raise GatewayError(
                "FF-MODELSTORE-001",
                f"model {name} has no version {version}; it has {known}",
                hint="fedfab gateway model list shows all models and versions",
            )
        return folder

    @contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        folder = self._folder(name)
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(handle)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
