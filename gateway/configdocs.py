"""The configuration explained, for a person (Markdown) and for an editor (JSON schema), out of the models that parse it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

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


def markdown(*, sources: bool = True) -> str:
    """A table for each section, with every option, what it takes, its default and its meaning."""
    document = schema()
    top: dict[str, Any] = {"$defs": document["$defs"]}
    parts: list[str] = []
    for name, place in document["properties"].items():
        if name == "source":
            for choice in place["items"]["oneOf"] if sources else ():
                kind = choice["properties"]["type"]["const"]
                parts += _sections(top, choice["allOf"][0], f"[[source]]` of type `{kind}", "source.")
        else:
            title = f"[[{name}]]" if place.get("type") == "array" else f"[{name}]"
            parts += _sections(top, place, title, f"{name}.")
    return "\n".join(parts)


def _sections(document: Mapping[str, Any], place: Mapping[str, Any], title: str, prefix: str) -> Iterator[str]:
    section = _model(document, place)
    if section is None:
        return
    yield f"### `{title}`\n\n{section.get('description', '')}\n"
    yield "| option | takes | default | meaning |\n|---|---|---|---|"
    required = section.get("required", ())
    inner = []
    for name, option in section["properties"].items():
        default = "required" if name in required else _default(option)
        yield f"| `{name}` | {_takes(document, option)} | {default} | {_cell(option.get('description', ''))} |"
        if _model(document, option) is not None:
            title = f"[[{prefix}{name}]]" if "items" in option else f"{prefix}{name} = {{ … }}"
            inner.append((option, title, f"{prefix}{name}."))
    yield ""
    for option, title, path in inner:
        yield from _sections(document, option, title, path)


def _model(document: Mapping[str, Any], place: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The table this place takes, alone or as an element of a list; None where it takes a plain value."""
    if "$ref" in place:
        found: Mapping[str, Any] = document["$defs"][place["$ref"].rpartition("/")[2]]
        return found if "properties" in found else None
    inside = [place["items"]] if "items" in place else [*place.get("anyOf", ()), *place.get("allOf", ())]
    return next(filter(None, (_model(document, each) for each in inside)), None)


def _takes(document: Mapping[str, Any], option: Mapping[str, Any]) -> str:
    if "anyOf" in option:
        return " or ".join(_takes(document, each) for each in option["anyOf"] if each.get("type") != "null")
    if "enum" in option or "const" in option:
        values = option.get("enum", [option.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    if option.get("type") == "array":
        return f"list of {_takes(document, option['items'])}" if "items" in option else "list"
    if _model(document, option) is not None or option.get("type") == "object":
        return "table"
    names = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = " and ".join(f"{sign} {option[bound]:g}" for bound, sign in bounds.items() if bound in option)
    kind = "file or folder" if option.get("format") == "path" else names.get(str(option.get("type")), "value")
    return f"{kind} {limits}".rstrip()


def _default(option: Mapping[str, Any]) -> str:
    value = option.get("default")
    return "" if value is None or value in ([], "") else f"`{json.dumps(value, ensure_ascii=False)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
