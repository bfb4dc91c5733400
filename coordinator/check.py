"""What can be known before the daemon starts: configuration, keys and certificates, database. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coordinator import db
from coordinator.configfile import load_config
from coordinator.credentials import credentials


def check(config_file: Path) -> Iterator[str]:
    """One line for each thing found in order. Raises FedfabError at the first that is not."""
    config = load_config(config_file)
    yield f"{config_file}: coordinator {config.coordinator.name}"
    for listen in config.listens:
        identity, _ = credentials(config, listen.suite)
        yield f"listen {listen.address}: {listen.suite}, certificate valid until {identity.peer.not_after:%F}"
    present, wanted = db.revisions(config.database_url)
    state = (
        "not made yet, `run` makes it"
        if present is None
        else "up to date"
        if present == wanted
        else f"at {present}, `run` takes it to {wanted}"
    )
    yield f"database: {state}"
