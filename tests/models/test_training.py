from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from models import metrics, network, parameters, training
from models.dataset import Dataset
from models.errors import ModelError
from models.spec import DataSpec, NetworkSpec, PrivacySpec, RoundsSpec, TaskSpec, TrainingSpec
from tests.models.simulation import dataset, federate, schema, score, start

SCHEMA = schema(3)
SPEC = TaskSpec(
    name="wear",
    seed=5,
    data=DataSpec(window=4),
    network=NetworkSpec(encoder=(16,), trunk=(8,)),
    training=TrainingSpec(epochs=2, batch_size=32, learning_rate=0.01),
    rounds=RoundsSpec(max=8),
)
QUALITY = SPEC.model_copy(update={"kind": "classification", "classes": 3})


def machine(seed: int, n: int = 240, classes: int = 0) -> Dataset:
    """A machine whose label follows from its window, every fifth sample held out; in units far from standard."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4, 3))
    signal = x[:, -1, 0] * 2 + x[:, :, 1].mean(axis=1) - np.abs(x[:, 0, 2])
    y = np.digitize(signal, [-1.5, 0.5]) if classes else 60 + 20 * signal
    return dataset(x * [5, 300, 0.01] + [20, 8000, 0.5], y, np.arange(n) % 5 == 1)


def fitted_digest() -> str:
    params = start(SPEC, [(SCHEMA, machine(1))])
    return parameters.digest(training.fit(SPEC, SCHEMA, params, machine(1), name="end", round_=1).params)


@pytest.mark.clause("8.6")
def test_training_learns_the_machine() -> None:
    data = machine(1, n=800)
    params = federate(SPEC, [(SCHEMA, data)])
    assert score(SPEC, [training.evaluate(SPEC, SCHEMA, params, data)], "r2") > 0.9


def test_classification_learns_the_machine() -> None:
    data = machine(1, n=800, classes=3)
    params = federate(QUALITY, [(SCHEMA, data)])
    tally = training.evaluate(QUALITY, SCHEMA, params, data)
    assert score(QUALITY, [tally], "accuracy") > 0.85
    assert score(QUALITY, [tally], "auc") > 0.95


def test_the_same_seed_gives_the_same_bits_in_every_process() -> None:
    program = "from tests.models.test_training import *\nprint(fitted_digest())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fitted_digest()


def test_end_and_round_shuffle_differently() -> None:
    data, params = machine(1), start(SPEC, [(SCHEMA, machine(1))])
    runs = [
        training.fit(SPEC, SCHEMA, params, data, name=name, round_=round_).params["head/0.weight"].tobytes()
        for name, round_ in (("a", 1), ("b", 1), ("a", 2))
    ]
    assert len(set(runs)) == 3


def test_the_global_random_state_plays_no_part() -> None:
    torch.manual_seed(1)
    first = fitted_digest()
    torch.manual_seed(2)
    assert fitted_digest() == first


def test_only_learned_parameters_come_back_and_nothing_given_is_changed() -> None:
    params = start(SPEC, [(SCHEMA, machine(1))])
    before = parameters.digest(params)
    received = parameters.from_bytes(parameters.to_bytes(params))
    fitted = training.fit(SPEC, SCHEMA, received, machine(1), name="end", round_=1)
    assert set(fitted.params) == {name for name in params if parameters.trainable(name)}
    assert fitted.samples == len(machine(1).train())
    assert parameters.digest(params) == before


def test_the_hold_out_is_never_trained_on() -> None:
    data = machine(1)
    spoiled = machine(1)
    spoiled.y[spoiled.holdout] = 1e6
    params = start(SPEC, [(SCHEMA, data)])
    first, second = (training.fit(SPEC, SCHEMA, params, one, name="end", round_=1) for one in (data, spoiled))
    assert parameters.digest(first.params) == parameters.digest(second.params)
    assert score(SPEC, [training.evaluate(SPEC, SCHEMA, params, spoiled)], "rmse") > 1e5


def test_one_step_is_adams_on_the_standardised_loss() -> None:
    """One batch, by hand: Adam's first step moves every parameter with a gradient by the learning rate against its sign."""
    spec = SPEC.model_copy(update={"training": TrainingSpec(epochs=1, batch_size=1000, learning_rate=1e-3)})
    data = machine(1)
    params = start(spec, [(SCHEMA, data)])
    after = training.fit(spec, SCHEMA, params, data, name="end", round_=1).params["head/0.bias"]
    error = training.predict(spec, SCHEMA, params, data.train().x) - data.train().y
    assert after - params["head/0.bias"] == pytest.approx(-1e-3 * np.sign(error.mean()), rel=1e-3)


def test_train_loss_is_the_mean_squared_standardised_error() -> None:
    spec = SPEC.model_copy(update={"training": TrainingSpec(epochs=1, batch_size=1000)})
    data = machine(1)
    params = start(spec, [(SCHEMA, data)])
    error = (training.predict(spec, SCHEMA, params, data.train().x) - data.train().y) / params["target/std"]
    loss = training.fit(spec, SCHEMA, params, data, name="end", round_=1).train_loss
    assert loss == pytest.approx(float((error**2).mean()), rel=1e-4)


def test_fedprox_keeps_an_end_near_the_global_model() -> None:
    params = start(SPEC, [(SCHEMA, machine(1))])

    def distance(**options: object) -> float:
        changed = TrainingSpec.model_validate({**SPEC.training.model_dump(), "epochs": 10, **options})
        spec = SPEC.model_copy(update={"training": changed})
        fitted = training.fit(spec, SCHEMA, params, machine(1), name="end", round_=1).params
        return float(np.sqrt(sum(((fitted[name] - params[name]) ** 2).sum() for name in fitted)))

    free, weak, strong = distance(), distance(rule="fedprox", mu=0.1), distance(rule="fedprox", mu=10.0)
    assert strong < 0.5 * weak < 0.5 * free
    assert distance(rule="fedprox", mu=0.0) == free == distance(mu=10.0)


def test_the_step_size_decays_from_round_to_round() -> None:
    decaying = TrainingSpec(epochs=1, batch_size=1000, learning_rate=0.01, learning_rate_decay=0.5)
    spec = SPEC.model_copy(update={"training": decaying})
    params = start(spec, [(SCHEMA, machine(1))])
    steps = [
        float(
            np.abs(
                training.fit(spec, SCHEMA, params, machine(1), name="end", round_=n).params["head/0.bias"]
                - params["head/0.bias"]
            )[0]
        )
        for n in (1, 2, 3)
    ]
    assert steps == pytest.approx([0.01, 0.005, 0.0025], rel=1e-2)


@pytest.mark.clause("8.7.2")
def test_a_private_update_is_bounded_and_noised() -> None:
    data, params = machine(1), start(SPEC, [(SCHEMA, machine(1))])

    def change(noise_multiplier: float, noise: np.random.Generator | None) -> np.ndarray:
        privacy = PrivacySpec(clip_norm=0.05, noise_multiplier=noise_multiplier)
        spec = SPEC.model_copy(update={"privacy": privacy})
        fitted = training.fit(spec, SCHEMA, params, data, name="end", round_=1, noise=noise).params
        return np.concatenate([(fitted[name] - params[name]).ravel() for name in sorted(fitted)])

    assert np.linalg.norm(change(0.0, None)) == pytest.approx(0.05, rel=1e-3)
    noisy = change(2.0, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(0.1, rel=0.15)
    assert np.array_equal(noisy, change(2.0, np.random.default_rng(0)))
    assert not np.array_equal(change(2.0, None), change(2.0, None)), "the noise must not follow from the task's seed"


def test_clusters_of_unlike_schemas_share_the_trunk() -> None:
    other = schema(2)
    wide, narrow = machine(1), machine(2)
    narrow = dataset(narrow.x[:, :, :2], narrow.y, narrow.holdout)
    params = federate(SPEC, [(SCHEMA, wide), (other, narrow)])
    assert set(parameters.shapes(SPEC, SCHEMA)) | set(parameters.shapes(SPEC, other)) == set(params)
    tallies = [training.evaluate(SPEC, SCHEMA, params, wide), training.evaluate(SPEC, other, params, narrow)]
    assert score(SPEC, tallies, "r2") > 0.5


def test_every_batch_is_a_sign_of_life() -> None:
    calls: list[None] = []
    data = machine(1)
    params = start(SPEC, [(SCHEMA, data)])
    training.fit(SPEC, SCHEMA, params, data, name="end", round_=1, progress=lambda: calls.append(None))
    assert len(calls) == 2 * 6, "two epochs of 192 samples in batches of 32"


def test_no_training_sample_is_an_error_that_names_the_end() -> None:
    data = machine(1)
    held = dataset(data.x, data.y, True)
    with pytest.raises(ModelError, match=r'FF-MODEL-008: end "spindle-1"'):
        training.fit(SPEC, SCHEMA, start(SPEC, [(SCHEMA, data)]), held, name="spindle-1", round_=1)


def test_divergence_is_an_error_that_names_the_end() -> None:
    data = machine(1)
    data.y[0] = np.inf
    with pytest.raises(ModelError, match=r'FF-MODEL-009: training of end "spindle-1" diverged in round 3'):
        training.fit(SPEC, SCHEMA, start(SPEC, [(SCHEMA, machine(1))]), data, name="spindle-1", round_=3)


def test_nothing_held_out_gives_no_metric() -> None:
    data = machine(1).train()
    assert metrics.metrics(SPEC, training.evaluate(SPEC, SCHEMA, start(SPEC, [(SCHEMA, data)]), data)) == {}


def test_parameters_of_another_schema_are_refused() -> None:
    params = start(SPEC, [(schema(2), dataset(np.ones((2, 4, 2)), [0, 1]))])
    with pytest.raises(ModelError, match=r"FF-MODEL-003"):
        network.load(network.build(SPEC, SCHEMA), params)


def test_what_is_loaded_is_dumped() -> None:
    params = start(SPEC, [(SCHEMA, machine(1))])
    model = network.build(SPEC, SCHEMA)
    network.load(model, params)
    assert all(np.array_equal(value, params[name]) for name, value in network.dump(model).items())


def test_predictions_do_not_depend_on_their_company() -> None:
    data, params = machine(1), start(SPEC, [(SCHEMA, machine(1))])
    many = np.tile(data.x, (training.CHUNK // len(data) + 2, 1, 1))
    together = training.predict(SPEC, SCHEMA, params, many)
    assert together.shape == (len(many),)
    np.testing.assert_allclose(together[: len(data)], training.predict(SPEC, SCHEMA, params, data.x), rtol=1e-5)
