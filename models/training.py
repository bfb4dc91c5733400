"""Local training, prediction and validation of one end, in torch on the processor. Only worker processes import this."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import metrics, network
from models.dataset import Dataset, class_numbers
from models.errors import ModelError
from models.learner import Params, Tally
from models.parameters import seeded
from models.schema import Schema
from models.spec import TaskSpec
from privacy import dp

CHUNK = 4096
"""Samples predicted at once."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What one round of local training gave."""

    params: Params
    """Trainable parameters of this schema's network; private where the task asks for it."""
    samples: int
    train_loss: float
    """Mean loss over all batches: squared error of the standardised label, or cross-entropy."""


def fit(
    spec: TaskSpec,
    schema: Schema,
    params: Params,
    data: Dataset,
    *,
    name: str,
    round_: int,
    noise: np.random.Generator | None = None,
    progress: Callable[[], object] = lambda: None,
) -> Fitted:
    """Train from ``params`` on the training part of ``data`` for the task's epochs, with a fresh Adam.

    The same task seed, ``name``, ``round_`` (from 1), ``params`` and ``data`` give the same bits on the same machine, unless the task
    asks for differential privacy: its noise comes from the operating system, so that nobody who knows the seed can subtract it, and
    only a test hands in ``noise``. FedProx adds mu/2 ||w - params||^2 to the loss (Li et al. 2020, equation 2). ``progress`` is
    called for every batch: somebody may be waiting for a sign of life.

    Raises ModelError FF-MODEL-003 where ``params`` do not fit, FF-MODEL-008 without a training sample, FF-MODEL-002 for a label
    that is no class, FF-MODEL-009 where the loss is no longer finite.
    """
    train = data.train()
    if len(train) == 0:
        raise ModelError(
            "FF-MODEL-008",
            f'end "{name}" has no training sample for task "{spec.name}"',
            hint="it needs labelled rows without gaps in its features, more than the hold-out keeps; look at its cleaning and label",
        )
    _be_deterministic()
    model = network.build(spec, schema)
    network.load(model, params)
    x, y = torch.from_numpy(train.x), _target(spec, params, train.y)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=spec.training.learning_rate * spec.training.learning_rate_decay ** (round_ - 1),
        weight_decay=spec.training.weight_decay,
        fused=True,
    )
    loss_of = _loss(spec)
    proximal = spec.training.mu if spec.training.rule == "fedprox" else 0.0
    start = [parameter.detach().clone() for parameter in model.parameters()]
    total = 0.0
    for batch in _batches(spec, len(train), seeded(spec.seed, "batches", name, round_)):
        optimizer.zero_grad()
        loss = loss_of(model(x[batch]), y[batch])
        objective = loss + proximal / 2 * _distance(model, start) if proximal else loss
        objective.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * len(batch)
        progress()
    mean_loss = total / (len(train) * spec.training.epochs)
    if not math.isfinite(mean_loss):
        raise ModelError(
            "FF-MODEL-009",
            f'training of end "{name}" diverged in round {round_}: the loss is {mean_loss}',
            hint="lower training.learning_rate in the task, or look for extreme values in this end's data",
        )
    return Fitted(_private(spec, network.dump(model), params, noise), len(train), mean_loss)


def predict(spec: TaskSpec, schema: Schema, params: Params, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predictions for windows in raw units: (n,) in label units, or probabilities (n, classes), float32.

    Raises ModelError FF-MODEL-003 where ``params`` do not fit.
    """
    _be_deterministic()
    model = network.build(spec, schema)
    network.load(model, params)
    with torch.inference_mode():
        windows = torch.from_numpy(x)
        scores = torch.cat([model(windows[at : at + CHUNK]) for at in range(0, max(len(x), 1), CHUNK)])
        if spec.kind == "classification":
            return scores.softmax(dim=1).numpy()
        return scores[:, 0].numpy() * params["target/std"] + params["target/mean"]


def evaluate(spec: TaskSpec, schema: Schema, params: Params, data: Dataset) -> Tally:
    """Validate ``params`` on the held-out part of ``data``; with none held out its count is 0, which is no error.

    Raises ModelError FF-MODEL-003 where ``params`` do not fit, FF-MODEL-002 for a label that is no class.
    """
    held = data.validation()
    return metrics.tally(spec, held.y, predict(spec, schema, params, held.x))


def _be_deterministic() -> None:
    """One thread and deterministic kernels, so that sums are taken in one order; a gateway trains its ends side by side anyway."""
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


def _target(spec: TaskSpec, params: Params, y: NDArray[np.float32]) -> Tensor:
    if spec.kind == "classification":
        return torch.from_numpy(class_numbers(spec, y))
    return torch.from_numpy((y - params["target/mean"]) / params["target/std"])


def _loss(spec: TaskSpec) -> Callable[[Tensor, Tensor], Tensor]:
    if spec.kind == "classification":
        return nn.functional.cross_entropy
    return lambda scores, target: nn.functional.mse_loss(scores[:, 0], target)


def _batches(spec: TaskSpec, samples: int, generator: np.random.Generator) -> Iterator[Tensor]:
    for _ in range(spec.training.epochs):
        order = torch.from_numpy(generator.permutation(samples))
        yield from (order[at : at + spec.training.batch_size] for at in range(0, samples, spec.training.batch_size))


def _distance(model: nn.Module, start: list[Tensor]) -> Tensor:
    """Squared distance of the parameters from where the round started."""
    return torch.stack([(now - then).square().sum() for now, then in zip(model.parameters(), start, strict=True)]).sum()


def _private(spec: TaskSpec, fitted: Params, start: Params, noise: np.random.Generator | None) -> Params:
    privacy = spec.privacy
    if privacy.clip_norm is None:
        return fitted
    return dp.clip_and_noise(
        fitted,
        start,
        clip_norm=privacy.clip_norm,
        noise_multiplier=privacy.noise_multiplier,
        rng=noise or np.random.default_rng(),
    )
