"""Kinds of option that several rooms share: a file beside the configuration, an address without a password.

A model is validated with ``context={"folder": Path}``, the folder of the configuration file; relative paths are relative to it.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

_PASSWORD = re.compile(r"(?P<before>://[^/@:?#]*:)(?!\d+(?:[/?#]|$)).*(?P<after>@)|(?P<option>[?&]password=)[^&]*")
"""``user:PASSWORD@`` (a port is no password, whatever follows it) or ``?password=PASSWORD``."""


def _from_the_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(folder, path)


def _mask(value: object) -> object:
    return _PASSWORD.sub(r"\g<before>\g<option>***\g<after>", value) if isinstance(value, str) else value


def _refuse_password(address: str) -> str:
    if _PASSWORD.search(address):
        raise ValueError("a password does not belong in the address; use password = { file = ... }")
    return address


LocalFile = Annotated[Path, AfterValidator(_from_the_folder)]
"""A file; a relative path is relative to the folder of the configuration file."""

Address = Annotated[str, AfterValidator(_refuse_password), BeforeValidator(_mask)]
"""A URL without a password. One that has one is refused, and masked before any error message can show it."""


def is_loopback(host: str) -> bool:
    """Whether this host can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
