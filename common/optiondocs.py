"""Options of a configuration explained for a person: Markdown tables out of the JSON schema of the models that parse it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

_SECRET = "#/$defs/Secret"  # noqa: S105 -- the name of a type; explained once, not under each option that is one


def markdown(document: Mapping[str, Any]) -> str:
    """The options above every table, then each table; ``document`` is a JSON schema with ``properties`` and ``$defs``."""
    options: Mapping[str, Any] = document["properties"]
    plain = {name: option for name, option in options.items() if _model(document, option) is None}
    parts = ["### Top of the file\n", *_rows(document, plain, ()), ""]
    for name, option in options.items():
        title = f"[[{name}]]" if option.get("type") == "array" else f"[{name}]"
        parts += sections(document, option, title, f"{name}.")
    return "\n".join(parts)


def sections(document: Mapping[str, Any], place: Mapping[str, Any], title: str, prefix: str) -> Iterator[str]:
    """Tables of the options of one place and, behind it, of those within."""
    section = _model(document, place)
    if section is None:
        return
    yield f"### `{title}`\n\n{section.get('description', '')}\n"
    options: Mapping[str, Any] = section["properties"]
    yield from _rows(document, options, section.get("required", ()))
    yield ""
    for name, option in options.items():
        title = f"[[{prefix}{name}]]" if "items" in option else f"{prefix}{name} = {{ … }}"
        yield from sections(document, option, title, f"{prefix}{name}.")


def _rows(document: Mapping[str, Any], options: Mapping[str, Any], required: Collection[str]) -> Iterator[str]:
    yield "| option | takes | default | meaning |\n|---|---|---|---|"
    for name, option in options.items():
        default = "required" if name in required else _default(option)
        yield f"| `{name}` | {_takes(document, option)} | {default} | {_cell(option.get('description', ''))} |"


def _model(document: Mapping[str, Any], place: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The table this place takes, alone or as an element of a list; None where it takes a plain value."""
    if "$ref" in place:
        if place["$ref"] == _SECRET:
            return None
        found: Mapping[str, Any] = document["$defs"][place["$ref"].rpartition("/")[2]]
        return found if "properties" in found else None
    inside = [place["items"]] if "items" in place else [*place.get("anyOf", ()), *place.get("allOf", ())]
    return next(filter(None, (_model(document, each) for each in inside)), None)


def _takes(document: Mapping[str, Any], option: Mapping[str, Any]) -> str:
    if option.get("$ref") == _SECRET:
        return "[a secret](#secrets)"
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
