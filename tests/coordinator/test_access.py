"""Who may call what: operators the management API, gateways the federation, nobody without a certificate of our CA."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from coordinator.api import OPERATIONS
from coordinator.client import Client
from coordinator.errors import CoordinatorError
from coordinator.operations import PREFIX
from tests.coordinator.world import Cloud
from trust import pki
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName
from trust.tls import client_context

CALLS = [(operation.method, operation.path) for operation in OPERATIONS] + [("GET", "/nothing"), ("DELETE", "/tasks")]


@pytest.fixture
async def serving(ca: Path, tmp_path: Path, suite_name: SuiteName) -> AsyncIterator[Cloud]:
    cloud = Cloud(ca, tmp_path, suite_name)
    async with asyncio.timeout(60), cloud.running():
        yield cloud


def _session(cloud: Cloud, name: str) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=client_context(*cloud.identity(name)))
    return aiohttp.ClientSession(cloud.url, connector=connector)


async def test_an_operator_is_answered(serving: Cloud) -> None:
    async with serving.client("ann") as client:
        assert (await client.version()).name == "cloud"


async def test_a_gateway_is_refused_on_every_path(serving: Cloud) -> None:
    async with _session(serving, "gateway-a") as session:
        for method, path in CALLS:
            filled = path.format(task="x", name="x", version=1)
            async with session.request(method, PREFIX + filled) as response:
                problem = await response.json(content_type="application/problem+json")
                assert (response.status, problem["code"]) == (403, "FF-COORD-003"), (method, path)
                assert problem["detail"] == (
                    '"gateway-a" has the role gateway; only an operator may call the management API'
                )


async def test_an_operator_is_no_member(serving: Cloud) -> None:
    async with _session(serving, "ann") as session, session.get("/federation/v1/messages") as response:
        assert response.status == 403


async def test_nobody_without_a_certificate(serving: Cloud) -> None:
    context = ssl.create_default_context(cafile=str(serving.ca / "issued" / "ann" / "ca.intl.crt"))
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(serving.url, connector=connector) as session:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.get(f"{PREFIX}/version")


async def test_nobody_with_a_certificate_of_another_ca(serving: Cloud, tmp_path: Path) -> None:
    pki.init(tmp_path / "other", [serving.suite], "Other Works")
    folder = pki.issue(tmp_path / "other", pki.Request("ann", "operator", "Other Works"))
    trusting = TrustStore.load(serving.ca / "issued" / "ann", serving.suite)
    async with Client(serving.url, Identity.load(folder, serving.suite), trusting) as client:
        with pytest.raises(CoordinatorError, match="FF-COORD-040"):
            await client.version()


async def test_a_revoked_operator_is_shut_out_without_a_restart(tmp_path: Path) -> None:
    folder = tmp_path / "ca"
    pki.init(folder, ["intl"], "Test Works")
    pki.issue(folder, pki.Request("cloud", "coordinator", "Test Works", ["127.0.0.1"]))
    pki.issue(folder, pki.Request("ann", "operator", "Test Works"))
    cloud = Cloud(folder, tmp_path)
    async with asyncio.timeout(60), cloud.running() as client:
        await client.version()
        pki.revoke(folder, "ann")
        revoked = (folder / "intl" / "crl.pem").read_bytes()
        (folder / "issued" / "cloud" / "crl.intl.pem").write_bytes(revoked)
        with pytest.raises(CoordinatorError, match="FF-TRUST-024"):
            await client.version()


@pytest.mark.parametrize(
    ("body", "field", "expected", "got", "nearest"),
    [
        ({"name": "wear", "round": {}}, "round", "one of classes, clusters, data, kind", '"round"', "rounds"),
        (
            {"name": "wear", "rounds": {"maxx": 3}},
            "rounds.maxx",
            "one of autonomy_s, cluster, deadline_s",
            '"maxx"',
            "max",
        ),
        ({"name": "wear", "rounds": {"max": 0}}, "rounds.max", "greater than or equal to 1", "0", None),
        ({"name": "wear", "rounds": {"max": "3"}}, "rounds.max", "a valid integer", '"3"', None),
        (
            {"name": "wear", "kind": "regresion"},
            "kind",
            "'regression' or 'classification'",
            '"regresion"',
            "regression",
        ),
        ({}, "name", "Name of the task; models are named after it.", "nothing", None),
    ],
)
async def test_a_wrong_field_is_named(
    cloud: Cloud, body: object, field: str, expected: str, got: str, nearest: str | None
) -> None:
    async with asyncio.timeout(60), cloud.running(), _session(cloud, "ann") as session:
        async with session.post(f"{PREFIX}/tasks", json=body) as response:
            problem = await response.json(content_type="application/problem+json")
        assert (response.status, problem["code"]) == (422, "FF-COORD-004")
        (error,) = problem["errors"]
        assert (error["field"], error["got"], error["nearest"]) == (field, got, nearest)
        assert error["expected"].startswith(expected)


async def test_what_is_no_call_is_refused_in_the_same_shape(cloud: Cloud) -> None:
    async with asyncio.timeout(60), cloud.running(), _session(cloud, "ann") as session:
        found = {}
        for method, path, data, kind in (
            ("GET", "/nothing", b"", "application/json"),
            ("DELETE", "/tasks", b"", "application/json"),
            ("POST", "/tasks", b"{}", "text/plain"),
            ("POST", "/tasks", b"{", "application/json"),
            ("POST", "/tasks", json.dumps({"name": "x" * 300_000}).encode(), "application/json"),
            ("GET", "/tasks?limit=1&limit=2", b"", "application/json"),
            ("GET", "/tasks?stat=running", b"", "application/json"),
            ("GET", "/tasks/nope", b"", "application/json"),
            ("GET", "/models/wear/versions/1", b"", "application/json"),
        ):
            async with session.request(method, PREFIX + path, data=data, headers={"Content-Type": kind}) as response:
                problem = await response.json(content_type="application/problem+json")
                found[method, path, kind, len(data)] = (response.status, problem["code"])
        assert list(found.values()) == [
            (404, "FF-COORD-001"),
            (405, "FF-COORD-001"),
            (415, "FF-COORD-001"),
            (422, "FF-COORD-004"),
            (413, "FF-COORD-001"),
            (422, "FF-COORD-004"),
            (422, "FF-COORD-004"),
            (404, "FF-COORD-020"),
            (404, "FF-COORD-030"),
        ]
