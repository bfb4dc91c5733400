from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.dp import clip_and_noise, epsilon

RANDOM = np.random.default_rng(0)
REFERENCE = {
    "trunk/0.weight": RANDOM.normal(size=(40, 50)).astype(np.float32),
    "head/0.bias": RANDOM.normal(size=7).astype(np.float32),
}


def change(by: float, *, clip_norm: float, noise_multiplier: float = 0.0, seed: int = 0) -> np.ndarray:
    """What becomes of an update that adds ``by`` to every parameter."""
    result = clip_and_noise(
        {name: value + np.float32(by) for name, value in REFERENCE.items()},
        REFERENCE,
        clip_norm=clip_norm,
        noise_multiplier=noise_multiplier,
        rng=np.random.default_rng(seed),
    )
    assert all(value.dtype == np.float32 and value.shape == REFERENCE[name].shape for name, value in result.items())
    return np.concatenate([(result[name].astype(np.float64) - REFERENCE[name]).ravel() for name in sorted(result)])


@given(by=st.floats(-10, 10), clip_norm=st.floats(0.01, 100))
def test_an_update_is_never_longer_than_the_bound(by: float, clip_norm: float) -> None:
    assert np.linalg.norm(change(by, clip_norm=clip_norm)) <= clip_norm * (1 + 1e-3) + 1e-4


def test_a_short_update_stays_as_it_is() -> None:
    np.testing.assert_allclose(change(0.01, clip_norm=10), 0.01, rtol=1e-3)


def test_a_long_update_keeps_its_direction() -> None:
    cut = change(5.0, clip_norm=1.0)
    assert np.linalg.norm(cut) == pytest.approx(1.0, rel=1e-4)
    assert cut.std() < 1e-6


@pytest.mark.clause("8.7.2")
def test_the_noise_is_gaussian_of_the_stated_deviation() -> None:
    noise = np.concatenate([change(0.0, clip_norm=0.5, noise_multiplier=3.0, seed=seed) for seed in range(50)])
    deviation, n = 1.5, noise.size
    assert abs(noise.mean()) < 4 * deviation / math.sqrt(n)
    assert noise.std() == pytest.approx(deviation, rel=4 / math.sqrt(2 * n))
    for quantile in (1.0, 2.0, 3.0):
        share = math.erf(quantile / math.sqrt(2))
        assert (np.abs(noise) < quantile * deviation).mean() == pytest.approx(
            share, abs=4 * math.sqrt(share * (1 - share) / n)
        )


def test_the_noise_does_not_depend_on_the_update() -> None:
    quiet = change(0.0, clip_norm=1.0, noise_multiplier=1.0)
    loud = change(3.0, clip_norm=1.0, noise_multiplier=1.0)
    np.testing.assert_allclose(loud - change(3.0, clip_norm=1.0), quiet, atol=1e-5)


@pytest.mark.parametrize(
    ("noise_multiplier", "rounds", "delta", "expected"),
    [
        (1.0, 1, 1e-5, 4.377),
        (0.5, 1, 1e-5, 9.997),
        (10.0, 100, 1e-5, 4.377),  # the same mu
    ],
)
def test_epsilon_of_known_cases(noise_multiplier: float, rounds: int, delta: float, expected: float) -> None:
    assert epsilon(noise_multiplier, rounds, delta) == pytest.approx(expected, abs=1e-3)


@given(
    noise_multiplier=st.floats(0.2, 50),
    rounds=st.integers(1, 500),
    delta=st.sampled_from([1e-3, 1e-5, 1e-8]),
)
def test_epsilon_is_tighter_than_zcdp_and_grows_with_the_rounds(
    noise_multiplier: float, rounds: int, delta: float
) -> None:
    rho = rounds / (2 * noise_multiplier**2)
    found = epsilon(noise_multiplier, rounds, delta)
    assert 0 < found <= rho + 2 * math.sqrt(rho * math.log(1 / delta)) + 1e-9
    assert epsilon(noise_multiplier, rounds + 50, delta) > found
    assert epsilon(noise_multiplier * 1.5, rounds, delta) < found


def test_epsilon_holds_against_the_best_attack() -> None:
    """No test of one Gaussian release against another may beat exp(epsilon) * false alarms + delta."""
    noise_multiplier, delta = 1.3, 1e-3
    bound = math.exp(epsilon(noise_multiplier, 1, delta))
    threshold = np.linspace(-5, 8, 400)

    def above(mean: float) -> np.ndarray:
        return np.array([math.erfc((t - mean) / noise_multiplier / math.sqrt(2)) / 2 for t in threshold])

    gap = above(1.0) - (bound * above(0.0) + delta)
    assert gap.max() <= 1e-9
    assert gap.max() > -1e-5, "the bound is tight"


def test_without_noise_there_is_no_guarantee() -> None:
    assert epsilon(0.0, 1, 1e-5) == math.inf
