"""One CA for all tests of the coordinator, and a coordinator of its own for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.coordinator.world import Cloud
from trust import pki
from trust.keys import SuiteName


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a CA that has issued a coordinator, an operator and three gateways."""
    folder = tmp_path_factory.mktemp("coordinator-ca")
    pki.init(folder, pki.SUITES, "Test Works")
    pki.issue(folder, pki.Request("cloud", "coordinator", "Test Works", ["localhost", "127.0.0.1"]))
    pki.issue(folder, pki.Request("ann", "operator", "Test Works"))
    for name in ("gateway-a", "gateway-b", "gateway-c"):
        pki.issue(folder, pki.Request(name, "gateway", "Test Works"))
    return folder


@pytest.fixture(params=pki.SUITES)
def suite_name(request: pytest.FixtureRequest) -> SuiteName:
    name: SuiteName = request.param
    return name


@pytest.fixture
def cloud(ca: Path, tmp_path: Path) -> Cloud:
    """A coordinator that does not run yet."""
    return Cloud(ca, tmp_path)
