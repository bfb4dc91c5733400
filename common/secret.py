"""Secrets stand in a file of their own, a systemd credential or an environment variable, never in the configuration, a log or an error."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.errors import FedfabError
from common.options import LocalFile
from common.validation import HiddenValueError


class SecretError(FedfabError):
    """A secret cannot be read, or everybody can read it."""


class Secret(BaseModel):
    """Where a secret is: ``{ file = "db.password" }``, ``{ credential = "db" }`` or ``{ env = "DB_PASSWORD" }``."""

    # It holds the place, never the secret, so that no representation, JSON or error of a configuration can show more.
    model_config = ConfigDict(extra="forbid", frozen=True)

    file: LocalFile | None = Field(
        default=None, description="File that holds the secret, without its last newline; mode 0600."
    )
    credential: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_.-]+$", description="Name of a systemd credential (LoadCredential=)."
    )
    env: str | None = Field(default=None, description="Environment variable that holds the secret.")

    @model_validator(mode="before")
    @classmethod
    def _is_no_secret_itself(cls, data: Any) -> Any:
        if isinstance(data, str):
            raise HiddenValueError('a secret does not stand in the configuration; use { file = "..." }')
        return data

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if [self.file, self.credential, self.env].count(None) != 2:
            raise ValueError(
                'say where it is in one way: { file = "..." }, { credential = "NAME" } or { env = "NAME" }'
            )
        return self

    def read(self) -> str:
        """The secret. Each call reads anew, so a changed password is found at the next try.

        Raises SecretError: FF-SECRET-001 where there is none, FF-SECRET-002 where others may read the file.
        """
        if self.file is not None:
            return _of_file(self.file)
        if self.credential is not None:
            return _of_credential(self.credential)
        value = os.environ.get(self.env or "")
        if value is None:
            raise SecretError(
                "FF-SECRET-001",
                f"the environment variable {self.env} that holds a secret is not set",
                hint="set it in the service's environment (systemd: EnvironmentFile=), or use { file = ... }",
            )
        return value


def _of_file(file: Path) -> str:
    secret, mode = _content(file, hint=f"create the file, readable by the service's user only: chmod 600 {file}")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SecretError(
            "FF-SECRET-002",
            f"the secret in {file} is not used: expected mode 0600, got 0{mode:o}, so others than its owner have access",
            hint=f"chmod 600 {file}; if others may have read it, change the secret too",
        )
    return secret


def _of_credential(name: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    hint = f"`systemctl edit` the service and add: [Service] LoadCredential={name}:/path/of/the/file"
    if folder is None:
        raise SecretError("FF-SECRET-001", f'systemd passed no credentials, expected "{name}"', hint=hint)
    return _content(Path(folder, name), hint=hint)[0]


def _content(file: Path, *, hint: str) -> tuple[str, int]:
    """Text without its last newline, and permission bits."""
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            return opened.read().removesuffix("\n").removesuffix("\r"), mode
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SecretError("FF-SECRET-001", f"the secret in {file} cannot be read: {why}", hint=hint) from None
