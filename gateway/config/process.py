"""The gateway as a process: its name and folder, its workers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from common.options import LocalFile
from connectors.contract import Name
from gateway.config.section import Section


class Gateway(Section):
    """Who this gateway is and where it keeps its data."""

    name: Name = Field(description="Name of this gateway, as in its certificate.")
    data_dir: LocalFile = Field(
        default=Path("data"), description="Folder for store, outbox and models; relative to this file."
    )

    @property
    def store(self) -> Path:
        """The file of the feature store."""
        return self.data_dir / "store.db"


class Workers(Section):
    """Processes that train; torch lives there and nowhere else."""

    processes: int = Field(default=1, ge=1, le=64, description="How many ends train at the same time.")
    memory_mb: int = Field(
        default=0,
        ge=0,
        description="Resident memory of one process, in MiB, beyond which it is replaced by a fresh one; 0: no limit.",
    )
    hang_s: float = Field(
        default=300.0,
        gt=0,
        description="Seconds after which a process that neither answers nor computes is replaced by a fresh one.",
    )
