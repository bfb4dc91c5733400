"""Differential privacy of a member's update: clip to an L2 bound, add Gaussian noise, and say what that guarantees."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]


def clip_and_noise(
    params: Arrays, reference: Arrays, *, clip_norm: float, noise_multiplier: float, rng: np.random.Generator
) -> dict[str, NDArray[np.float32]]:
    """``reference`` plus the clipped and noised change from it to ``params``, for every name in ``params``.

    The change of all parameters together is scaled down to an L2 norm of at most ``clip_norm``; every value then gets independent
    Gaussian noise of standard deviation ``noise_multiplier * clip_norm``. After Abadi et al. 2016 and McMahan et al. 2018 (with the
    member as the unit). Noise drawn in floating point does not defend against the attack of Mironov 2012 on its lowest bits.
    """
    change = {name: params[name].astype(np.float64) - reference[name] for name in sorted(params)}
    norm = math.sqrt(sum(float(np.vdot(value, value)) for value in change.values()))
    scale = min(1.0, clip_norm / norm) if norm > 0 else 1.0
    deviation = noise_multiplier * clip_norm
    return {
        name: (reference[name] + scale * value + deviation * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in change.items()
    }


def epsilon(noise_multiplier: float, rounds: int, delta: float) -> float:
    """The epsilon of (epsilon, delta)-differential privacy after ``rounds`` noised updates of one member; infinite without noise.

    Two neighbouring worlds differ in that the member's update is its own or zero (add or remove; for the exchange of its data by
    other data, halve ``noise_multiplier``). T rounds of the Gaussian mechanism are one with mu = sqrt(T) / noise_multiplier (Dong,
    Roth, Su 2019, corollary 2), whose delta is exact (Balle, Wang 2018, theorem 8). Beyond 500, where no guarantee is left, the zCDP
    bound rho + 2 sqrt(rho ln(1/delta)), rho = mu^2 / 2, is given (Bun, Steinke 2016, proposition 1.3).
    """
    if noise_multiplier == 0:
        return math.inf
    mu = math.sqrt(rounds) / noise_multiplier
    upper = mu**2 / 2 + mu * math.sqrt(2 * math.log(1 / delta))
    if upper > 500:
        return upper
    lower = 0.0
    while upper - lower > 1e-6 * upper:
        middle = (lower + upper) / 2
        lower, upper = (lower, middle) if _delta(middle, mu) <= delta else (middle, upper)
    return upper


def _delta(epsilon: float, mu: float) -> float:
    return _normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * _normal(-mu / 2 - epsilon / mu)


def _normal(x: float) -> float:
    """Cumulative distribution of the standard normal, exact in the lower tail."""
    return math.erfc(-x / math.sqrt(2)) / 2
