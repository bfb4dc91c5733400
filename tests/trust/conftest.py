"""One CA of both suites and three participants, made once for all tests that only read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from trust import pki
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    pki.init(folder, pki.SUITES, "Test Works")
    pki.issue(folder, pki.Request("cloud", "coordinator", "Test Works", ["localhost", "127.0.0.1"]))
    pki.issue(folder, pki.Request("gateway-a", "gateway", "Werk Süd"))
    pki.issue(folder, pki.Request("gateway-b", "gateway", "北厂"))
    return folder


@pytest.fixture(params=pki.SUITES)
def suite_name(request: pytest.FixtureRequest) -> SuiteName:
    name: SuiteName = request.param
    return name


@pytest.fixture
def cloud(ca: Path, suite_name: SuiteName) -> Identity:
    return Identity.load(ca / "issued" / "cloud", suite_name)


@pytest.fixture
def gateway(ca: Path, suite_name: SuiteName) -> Identity:
    return Identity.load(ca / "issued" / "gateway-a", suite_name)


@pytest.fixture
def trust(ca: Path, suite_name: SuiteName) -> TrustStore:
    return TrustStore.load(ca / "issued" / "cloud", suite_name)
