"""Takes secrets out of text: those that are known, and whatever looks like one. Rather too much than too little."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from pydantic import BaseModel

from common.errors import FedfabError
from common.secret import Secret
from gateway.config import Webhook

MASK = "[redacted]"

_NAME = r"[\w.-]*(?:passw|pasw|pwd|secret|token|passphrase|api[_-]?key|credential|authorization|private[_-]?key|hmac)[\w.-]*"
_SENSITIVE = re.compile(_NAME, re.IGNORECASE)
_PATTERNS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"(://[^/\s:@\"']*:)[^/\s\"']*(@)"), rf"\g<1>{MASK}\g<2>"),
    (re.compile(r"(https://[^/\s\"']+/)[^\s\"']{8,}"), rf"\g<1>{MASK}"),  # the address of a webhook is a right to post
    (re.compile(r"\b(Bearer|Basic|Digest)\s+[\w.~+/=-]{4,}", re.IGNORECASE), rf"\g<1> {MASK}"),
    (re.compile(rf"([?&]{_NAME}=)[^&\s\"']+", re.IGNORECASE), rf"\g<1>{MASK}"),
    # name = "value", "name": "value", name='value', name=value; the places { file = … } and { env = … } stay readable
    (re.compile(rf"({_NAME}[\"']?\s*[=:]\s*)(\"(?:[^\"\\]|\\.)*\"|'[^']*')", re.IGNORECASE), rf'\g<1>"{MASK}"'),
    (re.compile(rf"({_NAME}\s*[=:]\s*)(?![{{\[\"'\s])[^\s,;}}\]]+", re.IGNORECASE), rf"\g<1>{MASK}"),
)
_SHORTEST = 4
"""A known secret shorter than this is not searched for: it would be found in every word."""


class Redactor:
    """Call it with text; the secrets it knows, and everything that looks like one, are replaced."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = sorted({each for each in known if len(each) >= _SHORTEST}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for each in self._known:
            text = text.replace(each, MASK)
        for pattern, mask in _PATTERNS:
            text = pattern.sub(mask, text)
        return text


def secrets_of(config: BaseModel | None, environment: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Every secret that this configuration names, and those in the environment by the name of their variable."""
    for name, value in environment.items():
        if _SENSITIVE.search(name):
            yield value
    if config is not None:
        yield from _within(config)


def _within(value: object) -> Iterator[str]:
    if isinstance(value, Secret):
        with suppress(FedfabError):
            secret = value.read()
            yield from {secret, *secret.splitlines()}
    elif isinstance(value, BaseModel):
        if isinstance(value, Webhook) and value.url is not None:
            yield value.url  # who knows it may post there
        for name in type(value).model_fields:
            yield from _within(getattr(value, name))
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _within(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _within(each)
