"""The OpenAPI document says what the API does: generated calls, good and bad, over real TLS against a running coordinator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from coordinator.api import OPERATIONS, openapi_document
from coordinator.operations import PREFIX
from models.spec import TaskSpec
from tests.coordinator.world import Cloud

schema = schemathesis.openapi.from_dict(openapi_document())
schema.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@pytest.fixture(scope="module")
def session(ca: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, requests.Session]]:
    """A coordinator in a thread of its own, and an operator's session with it."""
    cloud = Cloud(ca, tmp_path_factory.mktemp("openapi"))
    ready, loops = threading.Event(), []

    async def whole() -> None:
        stop = asyncio.Event()
        async with cloud.running() as client, cloud.plant("gateway-a"):
            await client.submit(TaskSpec(name="wear", layer="cluster"))
            loops.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(whole(),))
    thread.start()
    assert ready.wait(30)
    folder = ca / "issued" / "ann"
    with requests.Session() as calls:
        calls.trust_env = False  # REQUESTS_CA_BUNDLE would win over our CA
        calls.cert = (str(folder / "intl.crt"), str(folder / "intl.key"))
        calls.verify = str(folder / "ca.intl.crt")
        yield cloud.url + PREFIX, calls
    loop, stop = loops[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)


@pytest.mark.clause("9.2.3")
@schema.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_call_answers_as_documented(case: Case, session: tuple[str, requests.Session]) -> None:
    url, calls = session
    if "wait" in (case.query or {}):
        case.query["wait"] = 0 if isinstance(case.query["wait"], int | float) else case.query["wait"]
    # who is enrolled, and rules between two fields of a task, are not in a schema
    unjudged = [positive_data_acceptance] if case.operation.label == "POST /tasks" else []
    case.call_and_validate(base_url=url, session=calls, timeout=20, verify=calls.verify, excluded_checks=unjudged)


def test_the_document_is_served_and_names_every_call(session: tuple[str, requests.Session]) -> None:
    url, calls = session
    served = calls.get(f"{url}/openapi.json", timeout=20).json()
    assert served == openapi_document()
    assert served["openapi"] == "3.1.0"
    documented = {(method.upper(), path) for path, calls in served["paths"].items() for method in calls}
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}
    for path, by_method in served["paths"].items():
        for method, operation in by_method.items():
            assert operation["summary"], (method, path)
            assert all(parameter["description"] for parameter in operation["parameters"]), (method, path)
