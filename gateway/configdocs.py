"""The configuration explained, for a person (Markdown) and for an editor (JSON schema), out of the models that parse it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from common import optiondocs
from connectors import registry
from gateway.config import Config

_MODE: JsonSchemaMode = "validation"


def schema() -> dict[str, Any]:
    """JSON schema (2020-12) of a configuration file with all types of sources."""
    sources = {name: registry.get(name).config for name in registry.types()}
    models: list[type[BaseModel]] = [Config, *sources.values()]
    places, document = models_json_schema([(model, _MODE) for model in models])
    top = document["$defs"].pop(places[Config, _MODE]["$ref"].rpartition("/")[2])
    top["properties"]["source"]["items"] = {
        "oneOf": [
            {"properties": {"type": {"const": name}}, "required": ["type"], "allOf": [places[model, _MODE]]}
            for name, model in sources.items()
        ]
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **top, "$defs": document["$defs"]}


def markdown(*, sections: bool = True, sources: bool = True) -> str:
    """A table for each section, and for each type of source, with every option, what it takes, its default and its meaning."""
    document = schema()
    types = document["properties"].pop("source")["items"]["oneOf"]
    parts = [optiondocs.markdown(document)] if sections else []
    for choice in types if sources else ():
        kind = choice["properties"]["type"]["const"]
        parts += optiondocs.sections(document, choice["allOf"][0], f"[[source]]` of type `{kind}", "source.")
    return "\n".join(parts)
