"""The ceiling: the same network trained on the data of all ends in one place, which is what a federation must do without.

Run as a process of its own (`python -m tools.demo.joined FILE`), because it needs torch. FILE is a `tools.demo.job.Job` as JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import mse_loss

from gateway.store import Store
from models import network, scaling
from models.dataset import Dataset, build
from models.export import export
from models.learner import Params
from models.parameters import held, initial, seeded, trainable
from models.schema import Schema
from models.spec import TaskSpec
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
    """Parameters after as many passes over the joined training data as each end makes in a federation, with the same step sizes.

    One network for each schema; what they share (trunk, head, an encoder of one schema) is one parameter, which all batches train.
    """
    sums = scaling.add(scaling.moments(spec, schema, data) for schema, data in parts)
    params = initial(spec, [schema for schema, _ in parts]) | scaling.scaling(spec, sums)
    schemas = {schema.digest(): schema for schema, _ in parts}
    networks = {digest: network.build(spec, schema) for digest, schema in schemas.items()}
    pools = {digest: _pool([data for schema, data in parts if schema.digest() == digest]) for digest in schemas}
    for model in networks.values():
        network.load(model, params)
    shared = _tie(list(networks.values()))
    random = seeded(spec.seed, "joined")
    for round_ in range(spec.rounds.max * spec.rounds.cluster):
        rate = spec.training.learning_rate * spec.training.learning_rate_decay ** (round_ // spec.rounds.cluster)
        optimizer = torch.optim.Adam(shared, lr=rate, weight_decay=spec.training.weight_decay, fused=True)
        for digest, batch in _batches(spec, {digest: len(y) for digest, (_, y) in pools.items()}, random):
            x, y = pools[digest]
            target = (y[batch] - float(params["target/mean"][0])) / float(params["target/std"][0])
            optimizer.zero_grad()
            mse_loss(networks[digest](x[batch])[:, 0], target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    constants = {name: value for name, value in params.items() if not trainable(name)}
    return constants | {name: value for model in networks.values() for name, value in network.dump(model).items()}


def _dataset(spec: TaskSpec, source: Source) -> Dataset:
    with Store.open(source.store, read_only=True) as store:
        return build(spec.data, store.features(source.end), source.end).train()


def _pool(parts: list[Dataset]) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (np.concatenate([getattr(part, name) for part in parts]) for name in ("x", "y"))
    return torch.from_numpy(x), torch.from_numpy(y)


def _tie(networks: list[network.Network]) -> list[torch.nn.Parameter]:
    """Make parameters of one name one parameter; all parameters, each once."""
    shared: dict[str, torch.nn.Parameter] = {}
    for model in networks:
        for name, parameter in list(model.named_parameters()):
            setattr(model, name, shared.setdefault(name, parameter))
    return list(shared.values())


def _batches(
    spec: TaskSpec, samples: dict[str, int], random: np.random.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    """The batches of one round's epochs, those of all schemas in random order."""
    for _ in range(spec.training.epochs):
        batches = [
            (digest, batch)
            for digest, count in samples.items()
            for batch in torch.split(torch.from_numpy(random.permutation(count)), spec.training.batch_size)
        ]
        yield from (batches[number] for number in random.permutation(len(batches)))


if __name__ == "__main__":
    run(Job.model_validate_json(Path(sys.argv[1]).read_bytes()))
