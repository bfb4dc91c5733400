"""Errors of this room; the codes are explained in ``docs/errors/trust.md``."""

from __future__ import annotations

from common.errors import FedfabError


class TrustError(FedfabError):
    """Base of all errors of `trust`."""
