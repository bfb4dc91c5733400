"""One call of the management API as data: the route, the check of what comes in, and its part of the OpenAPI document."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from trust.identity import Peer

PREFIX = "/api/v1"

Mode = Literal["validation", "serialization"]
Refs = Mapping[Any, Mapping[str, object]]


class Inputs(BaseModel):
    """Path and query parameters of a call, and its JSON body in a field called ``body``. Anything else is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FieldProblem(BaseModel):
    """One field that does not fit."""

    field: str = Field(description="Path of the field, e.g. rounds.max.")
    expected: str = Field(description="What would fit.")
    got: str = Field(description="What came.")
    nearest: str | None = Field(default=None, description="The known name closest to an unknown one.")


class Problem(BaseModel):
    """Every refusal, after RFC 9457."""

    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was expected, what came and where.")
    code: str = Field(description="Code to look up in the error catalogue, e.g. FF-COORD-020.")
    hint: str = Field(default="", description="What to do.")
    errors: list[FieldProblem] = Field(default=[], description="Field by field, where fields are the problem.")


I = TypeVar("I", bound=Inputs)  # noqa: E741 - the inputs of an operation
S = TypeVar("S")


@dataclass(frozen=True)
class Operation(Generic[S, I]):
    """One call. ``handle`` gets the services, the authenticated caller and the checked inputs; ``answer`` None means raw bytes."""

    method: Literal["GET", "POST"]
    path: str
    handle: Callable[[S, Peer, I], Awaitable[BaseModel | bytes]]
    inputs: type[I]
    answer: type[BaseModel] | None
    status: int = 200
    refusals: Sequence[int] = ()

    @property
    def body(self) -> type[BaseModel] | None:
        """Model of the JSON body; None where the call has none."""
        field = self.inputs.model_fields.get("body")
        annotation = field.annotation if field is not None else None
        return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None

    def in_path(self, name: str) -> bool:
        """Whether the parameter stands in the path."""
        return f"{{{name}}}" in self.path


def document(operations: Sequence[Operation[Any, Any]], title: str, description: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of all operations."""
    read: set[type[BaseModel]] = {operation.body for operation in operations if operation.body is not None}
    shown: set[type[BaseModel]] = {
        Problem,
        *(operation.answer for operation in operations if operation.answer is not None),
    }
    modes: list[tuple[type[BaseModel], Mode]] = [
        *((model, "validation") for model in sorted(read, key=_name)),
        *((model, "serialization") for model in sorted(shown, key=_name)),
    ]
    refs, schemas = models_json_schema(modes, ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, object]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, refs)
    certificate = {"type": "mutualTLS", "description": "A certificate of role operator, in the suite of the listener."}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": version, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": PREFIX}],
        "security": [{"certificate": []}],
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"certificate": certificate}},
    }


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(operation: Operation[Any, Any], refs: Refs) -> dict[str, object]:
    summary, _, description = inspect.cleandoc(operation.handle.__doc__ or "").partition("\n")
    answer: dict[str, object] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    if operation.answer is not None:
        answer = {"application/json": {"schema": refs[operation.answer, "serialization"]}}
    refusal = {"application/problem+json": {"schema": refs[Problem, "serialization"]}}
    found: dict[str, object] = {
        "operationId": operation.handle.__name__,
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "parameters": _parameters(operation),
        "responses": {
            str(operation.status): {"description": "Done.", "content": answer},
            **{
                str(status): {"description": HTTPStatus(status).phrase, "content": refusal}
                for status in sorted({403, 422, *operation.refusals} | ({413, 415} if operation.body else set()))
            },
        },
    }
    if operation.body is not None:
        content = {"application/json": {"schema": refs[operation.body, "validation"]}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _parameters(operation: Operation[Any, Any]) -> list[dict[str, object]]:
    schema = operation.inputs.model_json_schema()
    return [
        {
            "name": name,
            "in": "path" if operation.in_path(name) else "query",
            "required": operation.in_path(name),
            "description": field.get("description", ""),
            "schema": {key: value for key, value in field.items() if key not in ("title", "description")},
        }
        for name, field in schema.get("properties", {}).items()
        if name != "body"
    ]
