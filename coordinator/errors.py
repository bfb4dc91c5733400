"""Errors of this room; the codes are explained in ``docs/errors/coordinator.md``.

CoordinatorError
 ├── FileError     a configuration or task file cannot be used
 ├── NotFound      there is nothing of that name                HTTP 404
 ├── Conflict      it makes no sense in the present state       HTTP 409
 ├── Invalid       what was sent does not fit, field by field   HTTP 422
 ├── Refused       the caller may not                           HTTP 403
 └── CallRefused   at the client: what the coordinator answered, with its code
"""

from __future__ import annotations

from collections.abc import Sequence

from common.errors import FedfabError
from common.validation import Finding


class CoordinatorError(FedfabError):
    """Base of all errors of `coordinator`."""


class FileError(CoordinatorError):
    """A file that cannot be read, or does not say what it should."""


class NotFound(CoordinatorError):  # noqa: N818 - it names an answer, HTTP's 404
    """There is no such task, model or version."""


class Conflict(CoordinatorError):  # noqa: N818
    """The call makes no sense in the present state."""


class Refused(CoordinatorError):  # noqa: N818
    """The caller's role does not allow it."""


class Invalid(CoordinatorError):  # noqa: N818
    """Fields that do not fit."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        super().__init__(
            "FF-COORD-004",
            "; ".join(f"{'.'.join(map(str, finding.where))}: {finding}" for finding in findings),
            hint="correct these fields; GET /api/v1/openapi.json describes them all",
        )
        self.findings = findings


class CallRefused(CoordinatorError):
    """What the coordinator answered to a client."""
