"""A worker process: trains, validates and exports; the only place where torch is imported.

`python -m gateway.worker STORE LEVEL STYLE` reads the feature store itself, read-only, and talks frames (`gateway.frames`) over standard
input and output: parameters and sums pass, rows do not. It computes on one thread and at a lower priority than the daemon, so reading
and serving go before learning, and it leaves when its input ends. All results follow from the arguments alone.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import onnxruntime
import structlog

import models.training
from common.errors import FedfabError
from common.log import configure
from common.tasklog import Forward
from gateway import frames
from gateway.errors import as_json
from gateway.store import Store
from models import dataset, metrics, scaling
from models.dataset import Dataset, Rows
from models.export import export
from models.learner import Tally
from models.parameters import initial
from models.schema import FieldSpec, Schema
from models.spec import TaskSpec

log = structlog.get_logger()

NICE = 5
TICK_S = 1.0

Values = Mapping[str, Any]
Arrays = dict[str, frames.Array]
Answer = tuple[dict[str, object], Mapping[str, frames.Array]]


class Worker:
    """Answers one call after the other. Each call names its task and spec; those about an end name it, with its schema."""

    def __init__(self, store: Store, progress: Callable[[], None]) -> None:
        self.store = store
        self.progress = progress
        self.datasets: dict[tuple[str, str, str, int], Dataset] = {}
        self.operations: dict[str, Callable[[Values, Arrays], Answer]] = {
            "ready": self.ready,
            "describe": self.describe,
            "moments": self.moments,
            "fit": self.fit,
            "evaluate": self.evaluate,
            "validate": self.validate,
            "export": self.export,
            "forget": self.forget,
        }

    def ready(self, values: Values, arrays: Arrays) -> Answer:
        """Train on nothing worth learning, because torch loads much of itself at its first step, and no round should wait for it."""
        spec, schema = TaskSpec(name="warm-up"), Schema(fields=(FieldSpec(name="x"),), label=FieldSpec(name="y"))
        one = np.ones(1)
        data = dataset.build(spec.data, Rows(one.astype(np.int64), one[:, None], one, one), "warm-up")
        models.training.fit(spec, schema, initial(spec, [schema]), data, name="warm-up", round_=1)
        return {}, {}

    def describe(self, values: Values, arrays: Arrays) -> Answer:
        """How many samples the end has. Without ``until`` the snapshot is fixed here: rows up to the newest of now."""
        until = values["until"]
        if until is None:
            newest = self.store.latest(values["end"], 1).time
            until = int(newest[-1]) if len(newest) else 0
        data = self._data({**values, "until": until})
        held = int(data.holdout.sum())
        return {"until": until, "samples": len(data) - held, "holdout": held}, {}

    def moments(self, values: Values, arrays: Arrays) -> Answer:
        """Sums for standardisation over the training samples."""
        return {}, scaling.moments(_spec(values), _schema(values), self._data(values))

    def fit(self, values: Values, arrays: Arrays) -> Answer:
        """Validate the parameters as they came, then train from them."""
        started = time.monotonic()
        spec, schema, data = _spec(values), _schema(values), self._data(values)
        before = models.training.evaluate(spec, schema, arrays, data)
        fitted = models.training.fit(
            spec, schema, arrays, data, name=values["end"], round_=values["round"], progress=self.progress
        )
        seconds = time.monotonic() - started
        log.debug(
            "trained", round=values["round"], samples=fitted.samples, train_loss=fitted.train_loss, seconds=seconds
        )
        return {
            "samples": fitted.samples,
            "train_loss": fitted.train_loss,
            "seconds": seconds,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }, frames.join(params=fitted.params, before=before)

    def evaluate(self, values: Values, arrays: Arrays) -> Answer:
        """Validate parameters on the end's hold-out."""
        return {}, models.training.evaluate(_spec(values), _schema(values), arrays, self._data(values))

    def validate(self, values: Values, arrays: Arrays) -> Answer:
        """Validate an exported model, as it would be served, on the end's hold-out."""
        spec, data = _spec(values), self._data(values).validation()
        session = onnxruntime.InferenceSession(arrays["model"].tobytes(), providers=["CPUExecutionProvider"])
        return {}, _tally(spec, session, data) if len(data) else {}

    def export(self, values: Values, arrays: Arrays) -> Answer:
        """The model as an ONNX file, preprocessing inside."""
        model = export(_spec(values), _schema(values), arrays, values["metadata"])
        return {}, {"model": np.frombuffer(model, dtype=np.uint8)}

    def forget(self, values: Values, arrays: Arrays) -> Answer:
        """Drop the data sets of a task that is over."""
        for key in [key for key in self.datasets if key[0] == values["task"]]:
            del self.datasets[key]
        return {}, {}

    def _data(self, values: Values) -> Dataset:
        spec, end, until = _spec(values).data, values["end"], values["until"]
        key = values["task"], end, spec.model_dump_json(), until
        if key not in self.datasets:
            self.datasets[key] = dataset.build(spec, self.store.features(end, until=until), end)
        return self.datasets[key]


def _tally(spec: TaskSpec, session: onnxruntime.InferenceSession, data: Dataset) -> Tally:
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {session.get_inputs()[0].name: data.x}), strict=True))
    prediction = outputs["prediction"][:, 0] if spec.kind == "regression" else outputs["probabilities"]
    return metrics.tally(spec, data.y, prediction)


def _spec(values: Values) -> TaskSpec:
    return TaskSpec.model_validate(values["spec"])


def _schema(values: Values) -> Schema:
    return Schema.model_validate(values["schema"])


class Pipe:
    """Frames in from one stream, out to another, and a sign of life now and then while the answer is being computed."""

    def __init__(self, calls: BinaryIO, answers: BinaryIO) -> None:
        self.calls = calls
        self.answers = answers
        self.ticked = 0.0

    def receive(self) -> tuple[dict[str, Any], Arrays] | None:
        """The next call; None when the daemon is gone."""
        lengths = self.calls.read(frames.LENGTHS.size)
        if len(lengths) < frames.LENGTHS.size:
            return None
        head, body = frames.LENGTHS.unpack(lengths)
        return frames.decode(self.calls.read(head), self.calls.read(body))

    def send(self, values: Mapping[str, object], arrays: Mapping[str, frames.Array]) -> None:
        """Write one frame."""
        self.answers.writelines(frames.encode(values, arrays))
        self.answers.flush()

    def tick(self) -> None:
        """Say that the work goes on, once a second at most."""
        now = time.monotonic()
        if now - self.ticked >= TICK_S:
            self.ticked = now
            self.send({"tick": True}, {})


def serve(worker: Worker, pipe: Pipe) -> None:
    """Answer one call after the other. An error is an answer too: code, message and hint."""
    while (call := pipe.receive()) is not None:
        values, arrays = call
        about = {key: values[key] for key in ("task", "end") if values.get(key)}
        with structlog.contextvars.bound_contextvars(**about):
            try:
                answer = worker.operations[values["op"]](values, arrays)
            except FedfabError as error:
                answer = {"error": as_json(error)}, {}
            except Exception as error:
                log.exception("call failed", op=values["op"])
                answer = {"error": as_json(error)}, {}
        pipe.send(*answer)


def main(store: str, level: Literal["debug", "info", "warning", "error"], style: Literal["text", "json"]) -> None:
    """Serve standard input and output; whatever a library prints goes to standard error instead."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the daemon ends its workers in good order
    os.nice(NICE)
    pipe = Pipe(sys.stdin.buffer, os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    forward = Forward(lambda line: pipe.send({"log": line}, {}))  # the daemon keeps the log of each task
    configure(level, style, first=forward, first_level="debug")
    with Store.open(Path(store), read_only=True) as opened:
        serve(Worker(opened, pipe.tick), pipe)


if __name__ == "__main__":
    main(*sys.argv[1:])  # type: ignore[arg-type]  # the pool's own words
