"""Errors of this room; the codes are explained in ``docs/errors/trust.md``."""

from __future__ import annotations

from common.errors import FedfabError


class TrustError(FedfabError):
    """Something is not what it says it is: a key, a certificate, a message, a peer. Base of all errors of `trust`."""
