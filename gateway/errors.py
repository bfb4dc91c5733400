"""Errors of this room; the codes are explained in ``docs/errors/gateway.md``.

GatewayError
 ├── ConfigError       the configuration file (FF-CONFIG-…)
 └── StoreError        the feature store (FF-STORE-…)
      ├── CorruptStoreError its file is damaged
      └── StoreFullError    it takes no new samples
"""

from __future__ import annotations

from common.errors import FedfabError


class GatewayError(FedfabError):
    """Base of all errors of `gateway`."""


class ConfigError(GatewayError):
    """The configuration cannot be used; every problem found is in the message, one a line."""


class StoreError(GatewayError):
    """The store cannot be opened, or holds a block that cannot be read."""


class CorruptStoreError(StoreError):
    """The file of the store is damaged beyond single blocks."""


class StoreFullError(StoreError):
    """The raw layer takes no new samples: it is full, and its policy is to keep what it has."""


def as_json(error: Exception) -> dict[str, str]:
    """An error for a message or a status: code, message, hint. What nobody foresaw is FF-GATEWAY-001."""
    if isinstance(error, FedfabError):
        return {"code": error.code, "message": error.message, "hint": error.hint}
    return {"code": "FF-GATEWAY-001", "message": repr(error), "hint": "the log has the whole story; please report it"}
