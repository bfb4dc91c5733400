"""What `tools.demo.joined` is asked to do; apart from it, because it needs torch and who asks does not."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from models.schema import Schema
from models.spec import TaskSpec


class Source(BaseModel):
    """One end's data."""

    end: str
    cluster: str
    store: Path
    """The store of its gateway, read only."""


class Job(BaseModel):
    """What to train, from where, and where to put the models."""

    spec: TaskSpec
    schemas: dict[str, Schema]
    """By cluster."""
    sources: list[Source]
    models: dict[str, Path]
    """For each cluster, the ONNX file to write."""
