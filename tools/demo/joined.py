"""The ceiling: the same network trained on the data of all ends in one place, which is what a federation must do without.

Run as a process of its own (`python -m tools.demo.joined FILE`), because it needs torch. FILE is a `tools.demo.job.Job` as JSON.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import mse_loss

from gateway.store import Store
from models import metrics, network, scaling
from models.dataset import Dataset, build
from models.export import export
from models.learner import Params
from models.parameters import held, initial, seeded
from models.schema import Schema
from models.spec import TaskSpec
from models.training import evaluate
from tools.demo.job import Job, Source


def run(job: Job) -> None:
    """Train on everything and export a model for each cluster."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    parts = [(job.schemas[source.cluster], _dataset(job.spec, source)) for source in job.sources]
    params = train(job.spec, parts)
    for cluster, path in job.models.items():
        schema = job.schemas[cluster]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(export(job.spec, schema, held(params, [schema]), {"name": f"joined-{cluster}"}))


def train(spec: TaskSpec, parts: list[tuple[Schema, Dataset]]) -> Params:
    """The best parameters, by the hold-out, within as many passes over the joined data as each end makes in a federation.

    One network for each schema; what they share (trunk, head, an encoder of one schema) is one parameter, which all batches train.
    The step sizes are those of the federation. A federation takes the last round instead: the ceiling has every advantage.
    """
    sums = scaling.add(scaling.moments(spec, schema, data) for schema, data in parts)
    params = initial(spec, [schema for schema, _ in parts]) | scaling.scaling(spec, sums)
    pools = _pools(spec, params, parts)
    shared = _tie([pool.network for pool in pools])
    random = seeded(spec.seed, "joined")
    best, least = params, math.inf
    for round_ in range(spec.rounds.max * spec.rounds.cluster):
        rate = spec.training.learning_rate * spec.training.learning_rate_decay ** (round_ // spec.rounds.cluster)
        optimizer = torch.optim.Adam(shared, lr=rate, weight_decay=spec.training.weight_decay, fused=True)
        for pool, batch in _batches(spec, pools, random):
            optimizer.zero_grad()
            mse_loss(pool.network(pool.x[batch])[:, 0], pool.y[batch]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        learned = params | {name: value for pool in pools for name, value in network.dump(pool.network).items()}
        tallies = [evaluate(spec, schema, learned, data) for schema, data in parts]
        loss = metrics.metrics(spec, metrics.merge(tallies)).get("loss", -round_)
        if loss < least:
            best, least = learned, loss
    return best


@dataclass(frozen=True, slots=True)
class _Pool:
    """Everything of one schema."""

    network: network.Network
    x: torch.Tensor
    y: torch.Tensor
    """Standardised."""


def _dataset(spec: TaskSpec, source: Source) -> Dataset:
    with Store.open(source.store, read_only=True) as store:
        return build(spec.data, store.features(source.end), source.end)


def _pools(spec: TaskSpec, params: Params, parts: list[tuple[Schema, Dataset]]) -> list[_Pool]:
    pools = []
    for digest, schema in {schema.digest(): schema for schema, _ in parts}.items():
        model = network.build(spec, schema)
        network.load(model, params)
        own = [data.train() for other, data in parts if other.digest() == digest]
        y = (np.concatenate([data.y for data in own]) - params["target/mean"]) / params["target/std"]
        pools.append(_Pool(model, torch.from_numpy(np.concatenate([data.x for data in own])), torch.from_numpy(y)))
    return pools


def _tie(networks: list[network.Network]) -> list[torch.nn.Parameter]:
    """Make parameters of one name one parameter; all parameters, each once."""
    shared: dict[str, torch.nn.Parameter] = {}
    for model in networks:
        for name, parameter in list(model.named_parameters()):
            setattr(model, name, shared.setdefault(name, parameter))
    return list(shared.values())


def _batches(spec: TaskSpec, pools: list[_Pool], random: np.random.Generator) -> Iterator[tuple[_Pool, torch.Tensor]]:
    """The batches of one round's epochs, those of all schemas in random order."""
    for _ in range(spec.training.epochs):
        batches = [
            (pool, batch)
            for pool in pools
            for batch in torch.split(torch.from_numpy(random.permutation(len(pool.y))), spec.training.batch_size)
        ]
        yield from (batches[number] for number in random.permutation(len(batches)))


if __name__ == "__main__":
    run(Job.model_validate_json(Path(sys.argv[1]).read_bytes()))
