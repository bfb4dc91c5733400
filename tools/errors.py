"""Errors of this room; the codes are explained in ``docs/errors/tools.md``."""

from __future__ import annotations

from common.errors import FedfabError


class ToolError(FedfabError):
    """Base of all errors of `tools`."""
