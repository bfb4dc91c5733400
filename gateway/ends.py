"""An end as a learner: its calls go to a worker process, which reads the end's rows itself and keeps them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.files import write_atomic
from gateway import frames
from gateway.workers import Answer, WorkerPool
from models.learner import Description, Moments, Params, Tally, Update
from models.schema import Schema
from models.spec import TaskSpec


class Snapshot:
    """The time of the newest row each end learns from in one task, fixed when the end first describes itself.

    Kept in a file, so that later rounds, and the rounds after a restart, see the same data.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._until: dict[str, int] = json.loads(path.read_bytes()) if path.exists() else {}

    def get(self, end: str) -> int | None:
        """Nanoseconds since the epoch; None before `fix`."""
        return self._until.get(end)

    def fix(self, end: str, until: int) -> None:
        """Remember it on disk."""
        if self._until.get(end) != until:
            self._until[end] = until
            write_atomic(self.path, json.dumps(self._until).encode())


class EndLearner:
    """One end in one task (clause 5.3). Implements `models.learner.Learner`."""

    def __init__(
        self,
        name: str,
        *,
        cluster: str,
        schema: Schema,
        spec: TaskSpec,
        task: str,
        snapshot: Snapshot,
        pool: WorkerPool,
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.schema = schema
        self.spec = spec
        self.task = task
        self.snapshot = snapshot
        self.pool = pool
        self.round = 0
        """The last round this end took part in."""

    async def describe(self) -> Description:
        """Schema and number of samples; fixes the data this task learns from."""
        values = (await self._call("describe")).values
        self.snapshot.fix(self.name, values["until"])
        return Description({self.cluster: self.schema}, values["samples"], {self.name: values["samples"]})

    async def moments(self) -> Moments:
        """Sums for standardisation over the training samples."""
        return (await self._call("moments")).arrays

    async def fit(self, round_: int, params: Params) -> Update:
        """Train for one round in the worker."""
        values, arrays = await self._call("fit", params, round=round_)
        self.round = max(self.round, round_)
        return Update(
            params=frames.section(arrays, "params"),
            samples=values["samples"],
            train_loss=values["train_loss"],
            before={self.name: frames.section(arrays, "before")},
            report={"seconds": values["seconds"], "peak_memory_mb": values["peak_memory_mb"]},
        )

    async def evaluate(self, params: Params) -> Mapping[str, Tally]:
        """Validate parameters on this end's hold-out."""
        return {self.name: (await self._call("evaluate", params)).arrays}

    async def validate(self, model: bytes, spec: TaskSpec) -> Tally:
        """Validate an exported model, as it would be served, on the hold-out; ``spec`` is the one it was made for."""
        return (await self._call("validate", {"model": np.frombuffer(model, np.uint8)}, spec=spec.model_dump())).arrays

    async def finish(self, params: Params) -> Mapping[str, Any]:
        """Nothing to do: the gateway exports a model once for all ends that share it (`gateway.publish`)."""
        return {}

    async def _call(self, op: str, arrays: Mapping[str, frames.Array] | None = None, **values: object) -> Answer:
        subject = {
            "task": self.task,
            "end": self.name,
            "spec": self.spec.model_dump(),
            "schema": self.schema.model_dump(),
            "until": self.snapshot.get(self.name),
        }
        return await self.pool.call(op, {**subject, **values}, arrays, home=self.name)
