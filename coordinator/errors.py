"""Errors of this room; the codes are explained in ``docs/errors/coordinator.md``."""

from __future__ import annotations

from common.errors import FedfabError


class CoordinatorError(FedfabError):
    """Base of all errors of `coordinator`."""
