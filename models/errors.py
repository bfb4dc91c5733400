"""Errors of this room; the codes are explained in ``docs/errors/models.md``."""

from __future__ import annotations

from common.errors import FedfabError


class ModelError(FedfabError):
    """Base of all errors of `models`."""
