"""Errors of this room; the codes are explained in ``docs/errors/gateway.md``.

GatewayError
 ├── ConfigError       the configuration file (FF-CONFIG-…)
 └── StoreError        the feature store (FF-STORE-…)
"""

from __future__ import annotations

from common.errors import FedfabError


class GatewayError(FedfabError):
    """Base of all errors of `gateway`."""


class ConfigError(GatewayError):
    """The configuration cannot be used; every problem found is in the message, one a line."""


class StoreError(GatewayError):
    """The store cannot be opened, or holds a block that cannot be read."""
