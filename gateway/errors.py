"""Errors of this room; the codes are explained in ``docs/errors/gateway.md``."""

from __future__ import annotations

from common.errors import FedfabError


class GatewayError(FedfabError):
    """Base of all errors of `gateway`."""
