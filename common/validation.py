"""What pydantic found wrong, in the words of this product: what was expected, what came, the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from common.environment import FromEnvironment, as_written

Location = tuple[str | int, ...]

_HIDDEN = "a value that is not shown"
_SECRET = re.compile(r"password|secret|token|passphrase", re.IGNORECASE)


class HiddenValueError(ValueError):
    """What a validator raises for a value that no message may repeat."""


class Finding(NamedTuple):
    """One thing wrong. As text it is a sentence for a person; secrets are never in it."""

    where: Location
    """The keys that lead to it."""
    text: str
    expected: str
    got: str
    nearest: str | None = None
    """The known name that an unknown one comes close to."""

    def __str__(self) -> str:
        return self.text + (f' (did you mean "{self.nearest}"?)' if self.nearest else "")


def findings(model: type[BaseModel], error: ValidationError) -> Iterator[Finding]:
    """Everything in which the data does not fit ``model``, one finding for each cause."""
    details = error.errors(include_url=False)
    for detail in details:
        within = [other for other in details if other["loc"][: len(detail["loc"])] == detail["loc"]]
        if detail["type"] == "too_short" and len(within) > 1:
            continue  # pydantic does not count elements that are wrong, and they are reported
        yield _finding(model, detail)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that ``name`` was probably meant to be; None where nothing is near."""
    near = get_close_matches(name, list(names), n=1)
    return near[0] if near else None


def _finding(model: type[BaseModel], detail: Mapping[str, Any]) -> Finding:
    where: Location = detail["loc"]
    option = ".".join(str(part) for part in where[-1:] if isinstance(part, str))
    message: str = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    message = as_written(message.removeprefix("String should ").removeprefix("Tuple should "), detail["input"])
    got = _shown(option, detail["input"])
    if isinstance(detail.get("ctx", {}).get("error"), HiddenValueError):
        got = _HIDDEN
    match detail["type"]:
        case "extra_forbidden":
            known = _options(model, where[:-1])
            expected = f"one of {', '.join(sorted(known))}" if known else "no option"
            return Finding(where, f'unknown option "{option}"', expected, f'"{option}"', nearest(option, known))
        case "missing":
            described = _options(model, where[:-1]).get(option, "")
            text = f'"{option}" is missing' + (f": {described}" if described else "")
            return Finding(where, text, described or "a value", "nothing")
        case "value_error":
            text = f'"{option}": {message}' if option and not isinstance(detail["input"], Mapping) else message
            return Finding(where, text, message, got)
    guess = None
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        guess = nearest(detail["input"], re.findall(r"'([^']*)'", message))
    return Finding(where, f'"{option}": expected {message}, got {got}', message, got, guess)


def _shown(option: str, value: object) -> str:
    if _SECRET.search(option):
        return _HIDDEN
    if isinstance(value, FromEnvironment):
        return f'"{value.written}", whose value is not shown'
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 80 else f"{text[:76]}…"


def _options(model: type[BaseModel], location: Location) -> dict[str, str]:
    """Options (with their descriptions) of the table at this place, as far as the models tell."""
    models = [model]
    for part in location:
        if isinstance(part, str):
            inner = [
                found
                for each in models
                for name, info in each.model_fields.items()
                if part in (name, info.alias)
                for found in _models(info.annotation)
            ]
            models = inner or models  # a part that is no option names a member of a union
    return {info.alias or name: info.description or "" for each in models for name, info in each.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models inside an annotation such as ``tuple[A | B, ...] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
