"""Errors of this room; the codes are explained in ``docs/errors/federation.md``."""

from __future__ import annotations

from common.errors import FedfabError


class FederationError(FedfabError):
    """Base of all errors of `federation`."""
