"""The coordinator's own identity in a suite, checked against its configuration."""

from __future__ import annotations

from coordinator.config import Config
from coordinator.errors import CoordinatorError
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName


def credentials(config: Config, suite: SuiteName) -> tuple[Identity, TrustStore]:
    """Raises TrustError for files that do not hold, CoordinatorError FF-COORD-009 for a certificate of someone else."""
    folder = config.trust.identity
    identity = Identity.load(folder, suite)
    if (identity.peer.name, identity.peer.role) != (config.coordinator.name, "coordinator"):
        raise CoordinatorError(
            "FF-COORD-009",
            f'{folder / f"{suite}.crt"} is for "{identity.peer.name}", a {identity.peer.role}; '
            f'expected "{config.coordinator.name}", a coordinator',
            hint=f"fedfab pki issue DIR {config.coordinator.name} --role coordinator --host NAME, or correct [coordinator] name",
        )
    return identity, TrustStore.load(folder, suite)
