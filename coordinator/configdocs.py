"""The configuration explained, for a person (Markdown) and for an editor (JSON schema), out of the models that parse it."""

from __future__ import annotations

from typing import Any

from common import optiondocs
from coordinator.config import Config


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def markdown() -> str:
    """A table for each section, with every option, what it takes, its default and its meaning."""
    return optiondocs.markdown(schema())
