"""The gateway as a process: its name and folder, its workers, its log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

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


class Log(Section):
    """What goes to standard error, and the log of each task, a file in the folder logs of data_dir."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is shown.")
    format: Literal["text", "json"] = Field(default="text", description="Lines for a person, or JSON for a machine.")
    task_level: Literal["debug", "info", "warning", "error"] = Field(
        default="debug", description="The least that is kept in the log of a task."
    )
    task_mb: int = Field(default=16, ge=1, description="MiB kept of the log of a task; its oldest lines go first.")
    tasks: int = Field(
        default=50, ge=1, description="How many tasks keep a log; the one silent for longest goes first."
    )
