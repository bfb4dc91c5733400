"""The one shape of every error that a person can meet.

FedfabError
 ├── TrustError        trust/errors.py
 ├── ModelError        models/errors.py
 ├── ConnectorError    connectors/errors.py
 ├── FederationError   federation/errors.py
 ├── GatewayError      gateway/errors.py
 ├── CoordinatorError  coordinator/errors.py
 └── ToolError         tools/errors.py

Each room has one base class and few children. The code (``FF-MODBUS-002``) is the key to its entry in ``docs/errors/``.
"""

from __future__ import annotations


class FedfabError(Exception):
    """An error with a code to look up, a message (what was expected, what came, where) and a hint (what to do next)."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" + (f"\n  what to do: {self.hint}" if self.hint else "")
