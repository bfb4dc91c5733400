"""Errors of this room; the codes are explained in ``docs/errors/coordinator.md``.

CoordinatorError
 ├── NotFoundError      there is nothing of that name                HTTP 404
 ├── ConflictError      it makes no sense in the present state       HTTP 409
 ├── InvalidError       what was sent does not fit, field by field   HTTP 422
 ├── ForbiddenError     the caller may not                           HTTP 403
 └── CallRefusedError   at the client: what the coordinator answered, with its code
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import FedfabError
from common.validation import Finding


class CoordinatorError(FedfabError):
    """Base of all errors of `coordinator`."""


class NotFoundError(CoordinatorError):
    """There is no such task, model or version."""


class ConflictError(CoordinatorError):
    """The call makes no sense in the present state."""


class ForbiddenError(CoordinatorError):
    """The caller's role does not allow it."""


class InvalidError(CoordinatorError):
    """Fields that do not fit."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(
            "FF-COORD-004",
            "; ".join(f"{'.'.join(map(str, finding.where))}: {finding}" for finding in findings),
            hint="correct these fields; GET /api/v1/openapi.json describes them all",
        )
        self.findings = findings


class CallRefusedError(CoordinatorError):
    """What the coordinator answered to a client."""
