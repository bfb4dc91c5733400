"""The secrets of sources: a `common.secret.Secret` that cannot be read is a failure of its source, to be tried again."""

from __future__ import annotations

from common.secret import Secret, SecretError
from connectors.errors import ConnectorError


def read(secret: Secret) -> str:
    """The secret, read anew at each call, so a mended file is found at the next try. Raises ConnectorError."""
    try:
        return secret.read()
    except SecretError as error:
        raise ConnectorError("FF-SOURCE-001", error.message, hint=error.hint) from error
