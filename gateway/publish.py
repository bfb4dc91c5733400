"""From final parameters to a model in the store: export, judge on every end's hold-out, promote or hold back (clause 8.10)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import structlog

from gateway.ends import EndLearner
from gateway.modelstore import Draft, Evidence, ModelStore, Spread
from gateway.workers import WorkerPool
from models.learner import Params
from models.metrics import metrics
from models.parameters import digest, held, scaler
from models.schema import Schema
from models.spec import TaskSpec
from models.verdict import losses

log = structlog.get_logger()

ByEnd = dict[str, dict[str, float]]


async def publish(
    params: Params,
    *,
    name: str,
    ends: Sequence[EndLearner],
    models: ModelStore,
    pool: WorkerPool,
    interim: bool = False,
) -> Evidence:
    """Export the model ``name`` that ``ends`` share and put it in use, unless the one in use is better at any of them.

    Both are validated as files, the way they are served, on the same hold-out. A model that is held back stays in the store with the
    reason, for a person to promote. Called again for the same parameters it answers with the version it made then. ``interim`` marks a
    model that the gateway made by itself while the coordinator of its task was away.
    """
    first = ends[0]
    params = held(params, [first.schema])
    round_ = max(end.round for end in ends)
    metadata = {
        "name": name,
        "task": first.spec.name,
        "task_id": first.task,
        "round": str(round_),
        "schema": json.dumps(first.schema.model_dump()),
    }
    call = {"spec": first.spec.model_dump(), "schema": first.schema.model_dump(), "metadata": metadata}
    model = (await pool.call("export", call, params, home=first.name)).arrays["model"].tobytes()
    found = await _validate(model, first.spec, ends)
    parent, before, objection = await _parent(models, name, ends)
    reason = objection or "; ".join(losses(first.spec, before, found)) or None
    draft = Draft(
        task=first.spec.name,
        task_id=first.task,
        round=round_,
        spec=first.spec,
        data_schema=first.schema,
        params_digest=digest(params),
        metrics=found,
        inputs=_spreads(params, first.schema),
        parent=parent,
        parent_metrics=before,
        promoted=reason is None,
        verdict=f"held back: {reason}" if reason else _praise(parent),
        autonomous=interim,
    )
    evidence = models.add(name, draft, model)
    if evidence.promoted and evidence.parent == parent:
        models.promote(name, evidence.version, evidence.verdict)
    log.info("model judged", model=name, version=evidence.version, verdict=evidence.verdict)
    return evidence


async def _parent(models: ModelStore, name: str, ends: Sequence[EndLearner]) -> tuple[int | None, ByEnd, str | None]:
    """Version in use, its metrics on the hold-out of the new model, and what forbids comparing the two."""
    in_use = models.in_use(name)
    if in_use is None:
        return None, {}, None
    old, new = models.evidence(name, in_use.version), ends[0]
    difference = old.data_schema.difference(new.schema)
    if difference is None and (old.spec.kind, old.spec.outputs) != (new.spec.kind, new.spec.outputs):
        difference = (
            f"it is a {new.spec.kind} with {new.spec.outputs} outputs, not a {old.spec.kind} with {old.spec.outputs}"
        )
    if difference is not None:
        return in_use.version, {}, f"it cannot be compared with version {in_use.version} in use: {difference}"
    data = old.spec.data.model_copy(update=new.spec.data.model_dump(include={"holdout", "holdout_by"}))
    spec = old.spec.model_copy(update={"data": data})
    return in_use.version, await _validate(models.model(name, in_use.version), spec, ends), None


async def _validate(model: bytes, spec: TaskSpec, ends: Sequence[EndLearner]) -> ByEnd:
    tallies = await asyncio.gather(*(end.validate(model, spec) for end in ends))
    return {end.name: metrics(spec, tally) for end, tally in zip(ends, tallies, strict=True)}


def _spreads(params: Params, schema: Schema) -> dict[str, Spread]:
    scope = scaler(schema)
    means, stds = params[f"{scope}/mean"].tolist(), params[f"{scope}/std"].tolist()
    return {field.name: Spread(mean=mean, std=std) for field, mean, std in zip(schema.fields, means, stds, strict=True)}


def _praise(parent: int | None) -> str:
    return "promoted: the first of its name" if parent is None else f"promoted: nowhere worse than version {parent}"
