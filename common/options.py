"""Options that several rooms share: a file beside the configuration, an address without a password, how a daemon is watched and logs.

A model is validated with ``context={"folder": Path}``, the folder of the configuration file; relative paths are relative to it.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

_PASSWORD = re.compile(r"(?P<before>://[^/@:?#]*:)(?!\d+(?:[/?#]|$)).*(?P<after>@)|(?P<option>[?&]password=)[^&]*")
"""``user:PASSWORD@`` (a port is no password, whatever follows it) or ``?password=PASSWORD``."""
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:]+\]|[^:\[\]]+):(?P<port>\d{1,5})")


def _from_the_folder(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder", Path())
    return Path(folder, path)


def _mask(value: object) -> object:
    return _PASSWORD.sub(r"\g<before>\g<option>***\g<after>", value) if isinstance(value, str) else value


def _refuse_password(address: str) -> str:
    if _PASSWORD.search(address):
        raise ValueError("a password does not belong in the address; use password = { file = ... }")
    return address


def _host_and_port(address: str) -> str:
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(f'expected host:port, port up to 65535, such as 127.0.0.1:8443 or [::]:8443, got "{address}"')
    return address


LocalFile = Annotated[Path, AfterValidator(_from_the_folder)]
"""A file; a relative path is relative to the folder of the configuration file."""

Address = Annotated[str, AfterValidator(_refuse_password), BeforeValidator(_mask)]
"""A URL without a password. One that has one is refused, and masked before any error message can show it."""

Listening = Annotated[str, AfterValidator(_host_and_port)]
"""Where to listen: host:port."""


class Service(BaseModel):
    """How the daemon is watched and how it ends; with systemd the unit says the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    stop_s: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="Told to stop, it has so long to answer what was asked and to keep what came. Must be less than TimeoutStopSec.",
    )
    watchdog_s: float | None = Field(
        default=None,
        ge=1,
        description="A part that has work and gets nothing done for so long hangs: the cause is written down and the process ends with "
        "status 70. Default: WatchdogSec of the unit; without systemd, never.",
    )


class Log(BaseModel):
    """What goes to standard error, and the log of each task, a file in the folder logs of data_dir."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is shown.")
    format: Literal["text", "json"] = Field(default="text", description="Lines for a person, or JSON for a machine.")
    task_level: Literal["debug", "info", "warning", "error"] = Field(
        default="debug", description="The least that is kept in the log of a task."
    )
    task_mb: int = Field(default=16, ge=1, description="MiB kept of the log of a task; its oldest lines go first.")
    tasks: int = Field(
        default=50, ge=1, description="How many tasks keep a log; the one silent for longest goes first."
    )


def is_loopback(host: str) -> bool:
    """Whether this host can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
