"""The model registry: every version with its lineage, parameters and metrics per participant; which one is in use (clause 8.10).

The rows are in the database, the parameters in ``<folder>/<name>/<task>.safetensors``, written before their row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, update

from common.files import write_atomic
from coordinator import tables
from coordinator.db import rows
from coordinator.errors import ConflictError, CoordinatorError, NotFoundError
from coordinator.resources import Metrics, Model, Task, now_ms, plain
from federation.database import Database
from models import parameters
from models.learner import Params
from models.verdict import losses


class Registry:
    """Models of one coordinator."""

    def __init__(self, database: Database, folder: Path) -> None:
        self._database = database
        self._folder = folder

    async def find(self, name: str | None = None) -> list[Model]:
        """All versions, or those of ``name``, by name and version."""
        query = select(tables.models).order_by(tables.models.c.name, tables.models.c.version)
        if name is not None:
            query = query.where(tables.models.c.name == name)
        return [Model.model_validate(row) for row in await rows(self._database, query)]

    async def get(self, name: str, version: int) -> Model:
        """One version. Raises NotFoundError FF-COORD-030."""
        versions = {model.version: model for model in await self.find(name)}
        if version not in versions:
            known = (
                f"its versions are {', '.join(map(str, versions))}" if versions else "there is no model of that name"
            )
            raise NotFoundError(
                "FF-COORD-030",
                f'model "{name}" has no version {version}; {known}',
                hint="fedfab model list shows all models and versions",
            )
        return versions[version]

    async def in_use(self, name: str) -> Model | None:
        """The promoted version; None where none is."""
        return next((model for model in await self.find(name) if model.state == "promoted"), None)

    async def params(self, name: str, version: int) -> bytes:
        """The parameters as safetensors. Raises NotFoundError FF-COORD-030, CoordinatorError FF-COORD-032 when they are damaged."""
        model = await self.get(name, version)
        path = self._path(name, model.task)
        try:
            data = await asyncio.to_thread(path.read_bytes)
            whole = parameters.digest(parameters.from_bytes(data)) == model.digest
        except FileNotFoundError:
            whole = False
        if not whole:
            raise CoordinatorError(
                "FF-COORD-032",
                f"{path} is missing or not what was stored; its SHA-256 should be {model.digest}",
                hint="restore the file from the backup, or train the model again",
            )
        return data

    async def add(
        self,
        task: Task,
        params: Params,
        *,
        metrics: Metrics,
        participants: Mapping[str, Metrics],
        objections: Sequence[str],
    ) -> Model:
        """Store what ``task`` made as the next version of its name, and put it in use unless a participant is worse off with it.

        ``objections`` are the members' own, from validating both models on their present data; added to them is every end whose
        primary metric is worse than with the version in use (clause 8.10.1). Called again for the same task, it answers as before.
        """
        data = parameters.to_bytes(params)
        await asyncio.to_thread(write_atomic, self._path(task.name, task.id), data)

        def write(connection: Connection) -> int:
            known: int | None = connection.scalar(select(_models.version).where(_models.task == task.id))
            if known is not None:
                return known
            parent = connection.scalar(select(_in_use.version).where(_in_use.name == task.name))
            found = [*objections, *losses(task.spec, _metrics_of(connection, task.name, parent), participants)]
            latest = connection.scalar(select(func.max(_models.version)).where(_models.name == task.name))
            version = (latest or 0) + 1
            row = {
                "name": task.name,
                "version": version,
                "task": task.id,
                "parent": parent,
                "state": "candidate",
                "reason": f"held back: {'; '.join(found)}" if found else "",
                "digest": parameters.digest(params),
                "size": len(data),
                "members": list(task.members),
                "metrics": plain(metrics),
                "participants": plain(participants),
                "created": now_ms(),
            }
            connection.execute(insert(tables.models).values(row))
            if not found:
                why = "the first of its name" if parent is None else f"nowhere worse than version {parent}"
                _promote(connection, task.name, version, who=task.submitted_by, why=f"promoted: {why}")
            return version

        return await self.get(task.name, await self._database.write(write))

    async def promote(self, name: str, version: int, who: str) -> Model:
        """Put a version in use, whatever its metrics: the decision of an operator. Raises NotFoundError FF-COORD-030."""
        if (await self.get(name, version)).state != "promoted":
            why = f"promoted by {who}"
            await self._database.write(lambda connection: _promote(connection, name, version, who=who, why=why))
        return await self.get(name, version)

    async def roll_back(self, name: str, who: str) -> Model:
        """Put the version back in use that the present one replaced. Raises ConflictError FF-COORD-031 when there is none."""

        def write(connection: Connection) -> int | None:
            row = connection.execute(select(tables.in_use).where(_in_use.name == name)).mappings().one_or_none()
            if row is None or not row["before"]:
                return None
            *before, version = row["before"]
            _use(
                connection,
                name,
                version,
                before=before,
                who=who,
                why=f"rolled back from version {row['version']} by {who}",
            )
            return int(version)

        version = await self._database.write(write)
        if version is None:
            raise ConflictError(
                "FF-COORD-031",
                f'model "{name}": no version was in use before the present one',
                hint="fedfab model list shows all versions; promote the one you want",
            )
        return await self.get(name, version)

    def _path(self, name: str, task: str) -> Path:
        return self._folder / name / f"{task}.safetensors"


_models = tables.models.c
_in_use = tables.in_use.c


def _promote(connection: Connection, name: str, version: int, *, who: str, why: str) -> None:
    old = connection.execute(select(tables.in_use).where(_in_use.name == name)).mappings().one_or_none()
    _use(connection, name, version, before=[*old["before"], old["version"]] if old else [], who=who, why=why)


def _use(connection: Connection, name: str, version: int, *, before: list[int], who: str, why: str) -> None:
    row = {"version": version, "before": before, "since": now_ms(), "who": who, "why": why}
    if not connection.execute(update(tables.in_use).where(_in_use.name == name).values(row)).rowcount:
        connection.execute(insert(tables.in_use).values(name=name, **row))
    this_model = update(tables.models).where(_models.name == name)
    connection.execute(this_model.where(_models.state == "promoted").values(state="retired"))
    connection.execute(this_model.where(_models.version == version).values(state="promoted", reason=why))


def _metrics_of(connection: Connection, name: str, version: int | None) -> dict[str, Metrics]:
    query = select(_models.participants).where(_models.name == name, _models.version == version)
    return connection.scalar(query) or {}
