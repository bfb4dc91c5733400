"""What operators and Prometheus see of a coordinator: metrics behind mutual TLS or on loopback only, and the log of a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families as parse
from pydantic import ValidationError

from coordinator.config import Metrics
from coordinator.configfile import load_config
from coordinator.seeing import start_logging
from models.spec import TaskSpec
from tests.conftest import free_port
from tests.coordinator.world import Cloud, followed
from trust.tls import client_context


@pytest.fixture
def cloud(ca: Path, tmp_path: Path) -> Cloud:
    return Cloud(ca, tmp_path)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before)


async def scrape(cloud: Cloud, name: str, url: str = "") -> tuple[int, str]:
    identity, trust = cloud.identity(name)
    connector = aiohttp.TCPConnector(ssl=client_context(identity, trust))
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        http.get((url or cloud.url) + "/metrics") as response,
    ):
        return response.status, await response.text()


@pytest.mark.clause("9.4.3c")
@pytest.mark.clause("9.4.3d")
@pytest.mark.clause("9.4.3e")
async def test_an_operator_sees_members_traffic_calls_and_the_course_of_a_task(cloud: Cloud) -> None:
    async with cloud.running() as client, cloud.plants("gateway-a", "gateway-b"):
        task = await client.submit(TaskSpec.model_validate({"name": "wear", "layer": "cloud", "rounds": {"max": 2}}))
        await followed(client, task)
        status, text = await scrape(cloud, "ann")
        refused, _ = await scrape(cloud, "gateway-a")
    assert (status, refused) == (200, 403)
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }
    assert values["fedfab_tasks", ("state", "finished")] == 1
    assert values["fedfab_task_round", ("group", "cloud"), ("task", task.id)] == 2
    assert values["fedfab_end_validation", ("end", "gateway-a"), ("group", "cloud"), ("metric", "rmse"), ("task", task.id)] > 0  # fmt: skip
    assert values["fedfab_rounds_total",] == 2
    for peer in ("gateway-a", "gateway-b"):
        assert values["fedfab_federation_received_bytes_total", ("peer", peer)] > 1000
        assert values["fedfab_federation_sent_bytes_total", ("peer", peer)] > 1000
        assert 0 <= values["fedfab_coordinator_member_silent_seconds", ("peer", peer)] < 60
    assert values["fedfab_federation_message_bytes_count", ("direction", "received")] > 0
    calls = ("method", "POST"), ("path", "/api/v1/tasks"), ("status", "201")
    assert values["fedfab_coordinator_calls_total", *calls] == 1


async def test_prometheus_reads_without_a_certificate_where_the_file_says_so_and_nowhere_else(cloud: Cloud) -> None:
    port = free_port()
    cloud.config.write_text(cloud.config.read_text() + f'\n[metrics]\nlisten = "127.0.0.1:{port}"\n')
    async with cloud.running(), aiohttp.ClientSession() as http:
        async with http.get(
            f"http://127.0.0.1:{port}/metrics", headers={"Accept": "application/openmetrics-text"}
        ) as it:
            assert it.status == 200
            assert (await it.text()).endswith("# EOF\n")
        async with http.get(f"http://127.0.0.1:{port}/api/v1/tasks") as it:
            assert it.status == 404


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "10.0.0.1:9464", "localhost", "[::]:1"])
def test_plain_metrics_off_loopback_are_refused(listen: str) -> None:
    with pytest.raises(ValidationError, match="on loopback"):
        Metrics(listen=listen)


@pytest.mark.clause("9.4.3b")
async def test_the_log_of_a_task_is_downloaded_by_operators_only(cloud: Cloud) -> None:
    start_logging(load_config(cloud.config))
    async with cloud.running() as client, cloud.plants("gateway-a"):
        one = await client.submit(TaskSpec.model_validate({"name": "wear", "layer": "cloud", "rounds": {"max": 2}}))
        other = await client.submit(TaskSpec.model_validate({"name": "heat", "layer": "cloud", "rounds": {"max": 1}}))
        await followed(client, one)
        await followed(client, other)
        lines = [json.loads(line) for line in (await client.log(one.id)).splitlines()]
        warnings = await client.log(one.id, "error")
        identity, trust = cloud.identity("gateway-a")
        connector = aiohttp.TCPConnector(ssl=client_context(identity, trust))
        async with (
            aiohttp.ClientSession(connector=connector) as http,
            http.get(f"{cloud.url}/api/v1/tasks/{one.id}/log") as refused,
        ):
            assert refused.status == 403
    assert {line["task"] for line in lines} == {one.id}
    rounds = [(line["round"], line["group"]) for line in lines if line["event"] == "round done"]
    assert rounds == [(1, "cloud"), (2, "cloud")]
    assert any(line["event"] == "model added" for line in lines), "lines that do not name their task belong to it, too"
    assert warnings == b""
