"""The CA that the tests of the coordinator use."""

from __future__ import annotations

from tests.coordinator.conftest import ca

__all__ = ["ca"]
