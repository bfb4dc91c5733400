"""Errors of the connectors: one class, told apart by code."""

from __future__ import annotations

from common.errors import FedfabError


class ConnectorError(FedfabError):
    """A source cannot be reached or read; ``code`` is ``FF-<TYPE>-NNN``. The runtime will try again."""


class ConnectorConfigError(ConnectorError):
    """The configuration of a source is contradictory; trying again will not help."""
