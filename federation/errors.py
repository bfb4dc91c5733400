"""Errors of this room; the codes are explained in ``docs/errors/federation.md``.

FederationError
 ├── RefusedError        the other side said no, with its own code; asking again changes nothing
 ├── UnreachableError    the other side could not be reached or broke off; asking again may help
 ├── MemberError   a member answered a request with an error
 └── QuorumError     too few members answered
"""

from __future__ import annotations

from common.errors import FedfabError


class FederationError(FedfabError):
    """Base of all errors of `federation`."""


class RefusedError(FederationError):
    """The aggregator refused a call for good. ``status`` is HTTP's."""

    def __init__(self, code: str, message: str, *, hint: str = "", status: int = 400) -> None:
        super().__init__(code, message, hint=hint)
        self.status = status


class UnreachableError(FederationError):
    """The aggregator could not be reached, or the line broke; the caller tries again."""


class MemberError(FederationError):
    """A member answered a request with an error of its own."""


class QuorumError(FederationError):
    """Too few members answered for the round, or the task, to go on."""
