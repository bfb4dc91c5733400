"""Secrets stand in a file or an environment variable, never in the configuration, a log or an error."""

from __future__ import annotations

import os
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectors.errors import ConnectorError
from connectors.options import LocalFile


class Secret(BaseModel):
    """Where a secret is: ``{ file = "db.password" }`` or ``{ env = "DB_PASSWORD" }``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: LocalFile | None = Field(default=None, description="File that holds the secret, without its last newline.")
    env: str | None = Field(default=None, description="Environment variable that holds the secret.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError('say where the secret is in one way: { file = "..." } or { env = "NAME" }')
        return self

    def value(self) -> str:
        """Read the secret; each call reads anew, so a changed password is found at the next start.

        Raises ConnectorError.
        """
        if self.file is not None:
            try:
                return self.file.read_text().removesuffix("\n").removesuffix("\r")
            except (OSError, UnicodeDecodeError) as error:
                raise ConnectorError(
                    "FF-SOURCE-001",
                    f"the secret in {self.file} cannot be read: {error.__class__.__name__}",
                    hint="create the file, readable by the gateway's user only (chmod 600)",
                ) from error
        value = os.environ.get(self.env or "")
        if value is None:
            raise ConnectorError(
                "FF-SOURCE-001",
                f"the environment variable {self.env} that holds a secret is not set",
                hint="set it in the service's environment (systemd: EnvironmentFile=), or use { file = ... }",
            )
        return value
