"""The Open Inference Protocol over real HTTP: answers, refusals, hot swap, and predictions from stored windows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
from aiohttp import ClientSession

from gateway.errors import StoreError
from gateway.modelstore import ModelStore, digest
from gateway.store import Result
from models.dataset import Rows
from models.schema import FieldSpec, Schema
from tests.gateway.served import FIELDS, ROWS, SCHEMA, draft, onnx_model, serving

NAN = float("nan")
INFER = "/v2/models/wear/infer"


class Plant:
    """Rows of the end spindle-1, and the results that were recorded."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.x = np.ones((ROWS, FIELDS))
        self.group = np.zeros(ROWS)
        self.newest = time.time_ns()

    def latest(self, end: str, n: int) -> Rows:
        count = len(self.x)
        times = self.newest - np.arange(count - 1, -1, -1, dtype=np.int64) * 1_000_000_000
        return Rows(times[-n:], self.x[-n:], self.group[-n:], np.full(count, NAN)[-n:])


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    for i in range(3):
        store.add("wear", draft(str(i)), onnx_model(add=100.0 * i))
    store.promote("wear", 1, "test")
    return store


@pytest.fixture
def plant() -> Plant:
    return Plant()


Client = ClientSession


@pytest.fixture
async def client(models: ModelStore, plant: Plant) -> AsyncIterator[Client]:
    pump = Schema(fields=(FieldSpec(name="pressure", unit="bar"),), label=SCHEMA.label)
    ends = {"spindle-1": SCHEMA, "pump-1": pump}
    async with serving(models, ends=ends, latest=plant.latest, write=plant.results.extend) as server:
        yield server.client


def window(data: object = None, *, n: int = 1, datatype: str = "FP32", **changes: object) -> dict[str, object]:
    tensor: dict[str, object] = {"name": "window", "shape": [n, ROWS, FIELDS], "datatype": datatype}
    return {"inputs": [tensor | {"data": [1.0] * n * ROWS * FIELDS if data is None else data} | changes]}


async def post(client: Client, body: object, path: str = INFER) -> tuple[int, dict[str, Any]]:
    async with client.post(path, json=body) as response:
        return response.status, await response.json()


async def get(client: Client, path: str) -> tuple[int, dict[str, Any]]:
    async with client.get(path) as response:
        return response.status, await response.json()


async def test_the_server_says_what_it_is(client: Client) -> None:
    assert (await get(client, "/v2"))[1]["name"] == "fedfab"
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/wear/ready", "/v2/models/wear/versions/2/ready"):
        assert (await get(client, path))[0] == 200
    assert (await get(client, "/v2/models"))[1] == {"models": [{"name": "wear", "version": "1", "state": "READY"}]}
    assert (await get(client, "/status"))[1] == {"gateway": "test"}


async def test_metadata_names_tensors_and_fields(client: Client) -> None:
    status, metadata = await get(client, "/v2/models/wear")
    assert status == 200
    assert metadata["versions"] == ["1", "2", "3"]
    assert metadata["inputs"] == [{"name": "window", "datatype": "FP32", "shape": [-1, ROWS, FIELDS]}]
    assert metadata["outputs"] == [{"name": "prediction", "datatype": "FP32", "shape": [-1, 1]}]
    assert [field["unit"] for field in metadata["parameters"]["fields"]] == ["mm/s", "degC"]


@pytest.mark.clause("9.3.4f")
@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6], [[[1, 2], [3, 4], [5, 6]]]], ids=["flat", "nested"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "INT8", "UINT64"])
async def test_prediction(client: Client, data: list[Any], datatype: str) -> None:
    status, answer = await post(client, {"id": "42", **window(data, datatype=datatype)})
    assert (status, answer) == (
        200,
        {
            "id": "42",
            "model_name": "wear",
            "model_version": "1",
            "parameters": {"task": "wear", "task_id": "t1", "round": 3, "model_digest": digest(onnx_model(add=0.0))},
            "outputs": [{"name": "prediction", "datatype": "FP32", "shape": [1, 1], "data": [21.0]}],
        },
    )


async def test_a_batch_beyond_the_event_loop(client: Client) -> None:
    n = 20_000
    status, answer = await post(client, window(np.repeat(np.arange(n), ROWS * FIELDS).tolist(), n=n))
    assert status == 200
    assert answer["outputs"][0]["data"] == (6.0 * np.arange(n)).tolist()


async def test_a_version_that_is_not_in_use(client: Client) -> None:
    _, answer = await post(client, window(), "/v2/models/wear/versions/3/infer")
    assert (answer["model_version"], answer["outputs"][0]["data"]) == ("3", [206.0])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("{", 400, ["FF-INFER-003", "no JSON"]),
        ({"inputs": 1}, 400, ["FF-INFER-003", "inputs", "got 1"]),
        ({"inputs": [{"name": "window", "shape": [1], "datatype": "FP32"}]}, 400, ["FF-INFER-003", "inputs.0.data"]),
        ({}, 400, ["FF-INFER-004", '"window"', "none"]),
        (window(name="x"), 400, ["FF-INFER-004", '"window"', "x"]),
        (window(datatype="BYTES"), 400, ["FF-INFER-005", '"BYTES"', "FP32"]),
        (window(shape=[1, 4, 2]), 400, ["FF-INFER-006", "[1, 4, 2]", "[n, 3, 2]"]),
        (window(shape=[6]), 400, ["FF-INFER-006", "[6]", "[n, 3, 2]"]),
        (window([1.0] * 5), 400, ["FF-INFER-006", "5 numbers"]),
        (window([[1, 2, 3], [4, 5, 6]]), 400, ["FF-INFER-006", "[2, 3]"]),
        (window([1.0, 2.0, [3.0]]), 400, ["FF-INFER-007", "numbers only"]),
        (window([1, 2, 3, 4, 5, None]), 400, ["FF-INFER-007", "numbers only"]),
        (window(["1", "2", "3", "4", "5", "6"]), 400, ["FF-INFER-007"]),
        (window([1e300] * 6, datatype="FP64"), 400, ["FF-INFER-007", "1e+300"]),
        (window([2**24 + 1] * 6, datatype="INT32"), 400, ["FF-INFER-007", "16777217 as INT32"]),
        (window([200] * 6, datatype="INT8"), 400, ["FF-INFER-007", "200 as INT8"]),
        (window([0.5] * 6, datatype="INT8"), 400, ["FF-INFER-007", "0.5 as INT8"]),
        (window([2**70] * 6, datatype="INT64"), 400, ["FF-INFER-007"]),
        (window() | {"outputs": [{"name": "label"}]}, 400, ["FF-INFER-004", "label", "prediction"]),
        (window() | {"parameters": {"end": "spindle-1"}}, 400, ["FF-INFER-004", "not both"]),
        ({"parameters": {"end": "spindle-9"}}, 404, ["FF-INFER-008", "spindle-9", "pump-1, spindle-1"]),
        ({"parameters": {"end": "pump-1"}}, 409, ["FF-INFER-008", '"vibration" is missing']),
    ],
)
async def test_refusals_say_what_was_expected_and_what_came(
    client: Client, body: object, status: int, words: list[str]
) -> None:
    async with client.post(INFER, **({"data": body} if isinstance(body, str) else {"json": body})) as response:
        answer = await response.json()
    assert response.status == status
    assert [word for word in words if word not in answer["error"]] == [], answer


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/models/none/infer", ["FF-INFER-001", "in use: wear"]),
        ("/v2/models/..%2f..%2fetc/infer", ["FF-INFER-001"]),
        ("/v2/models/wear/versions/9/infer", ["FF-INFER-002", "1, 2, 3"]),
        ("/v2/models/wear/versions/x/infer", ["FF-INFER-002"]),
        ("/v2/nothing", ["/v2/nothing"]),
    ],
)
async def test_unknown_models_and_paths(client: Client, path: str, words: list[str]) -> None:
    status, answer = await post(client, window(), path)
    assert status == 404
    assert [word for word in words if word not in answer["error"]] == [], answer


@pytest.mark.clause("8.10.2")
async def test_hot_swap_fails_no_request(client: Client, models: ModelStore) -> None:
    seen: list[tuple[int, str, float]] = []
    swapped = asyncio.Event()

    async def ask() -> None:
        while not swapped.is_set():
            status, answer = await post(client, window())
            seen.append((status, answer["model_version"], answer["outputs"][0]["data"][0]))

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(ask())
        for version in (2, 3, 1, 2):
            models.promote("wear", version, "test")
            assert (await post(client, window()))[1]["model_version"] == str(version)
        assert models.roll_back("wear", "test").version == 1
        assert (await post(client, window()))[1]["model_version"] == "1"
        swapped.set()
    assert {status for status, _, _ in seen} == {200}
    assert {(version, value) for _, version, value in seen} <= {("1", 6.0), ("2", 106.0), ("3", 206.0)}


async def test_a_damaged_version_does_not_stop_the_one_before(client: Client, models: ModelStore) -> None:
    assert (await post(client, window()))[0] == 200
    (models.folder / "wear" / "2" / "model.onnx").write_bytes(b"damaged")
    models.promote("wear", 2, "test")
    assert (await post(client, window()))[1]["model_version"] == "1"
    models.promote("wear", 3, "test")
    assert (await post(client, window()))[1]["model_version"] == "3"


@pytest.mark.clause("9.3.4f")
async def test_prediction_from_the_latest_window_of_an_end(client: Client, plant: Plant) -> None:
    plant.newest = 1_700_000_000_123_000_000
    plant.x = np.array([[50, 50], [1, 2], [NAN, 9], [3, 4], [5, 6]], dtype=float)
    plant.group = np.array([1, 2, 2, 2, 2], dtype=float)
    status, answer = await post(client, {"parameters": {"end": "spindle-1"}})
    assert status == 200
    assert answer["outputs"][0]["data"] == [21.0]
    said = {key: answer["parameters"][key] for key in ("end", "row_time", "skipped_rows", "missing")}
    assert said == {
        "end": "spindle-1",
        "row_time": "2023-11-14T22:13:20.123Z",
        "skipped_rows": 1,
        "missing": ["vibration"],
    }
    assert answer["parameters"]["age_s"] == pytest.approx(time.time() - 1_700_000_000.123, abs=60)


async def test_an_end_with_too_few_rows_in_its_run(client: Client, plant: Plant) -> None:
    plant.group = np.array([1, 2, 2], dtype=float)
    status, answer = await post(client, {"parameters": {"end": "spindle-1"}})
    assert status == 409
    assert 'FF-INFER-009: end "spindle-1" has 2 usable rows in its present run, model wear needs 3' in answer["error"]


async def test_an_end_with_stale_rows(client: Client, plant: Plant) -> None:
    plant.newest = time.time_ns() - 60_000_000_000
    assert (await post(client, {"parameters": {"end": "spindle-1", "max_age_s": 3600}}))[0] == 200
    status, answer = await post(client, {"parameters": {"end": "spindle-1", "max_age_s": 5}})
    assert status == 409
    assert "FF-INFER-010" in answer["error"]
    assert "at most 5 s" in answer["error"]


async def test_answers_reach_the_results_layer(models: ModelStore, plant: Plant) -> None:
    async with serving(models, ends={"spindle-1": SCHEMA}, latest=plant.latest, write=plant.results.extend) as server:
        await post(server.client, {"parameters": {"end": "spindle-1"}})
        await post(server.client, window())
    stored, sent = plant.results
    assert (stored.model, stored.version, stored.end) == ("wear", "1", "spindle-1")
    assert stored.outputs == {"prediction": [[6.0]], "row_time": plant.newest, "latency_s": ANY}
    assert (sent.end, sent.outputs) == ("", {"prediction": [[6.0]], "latency_s": ANY})
    assert server.recorder.written == 2
    assert stored.inputs == sent.inputs


async def test_a_results_layer_that_fails_costs_no_answer(models: ModelStore) -> None:
    def broken(results: object) -> None:
        raise OSError("disk full")

    async with serving(models, write=broken) as server:
        assert (await post(server.client, window()))[0] == 200
    assert (server.recorder.written, server.recorder.dropped) == (0, 1)


async def test_a_failure_of_the_gateway_itself_is_json_too(models: ModelStore) -> None:
    def latest(end: str, n: int) -> Rows:
        raise StoreError("FF-STORE-006", "the store is being opened", hint="ask again in a moment")

    async with serving(models, ends={"spindle-1": SCHEMA}, latest=latest) as server:
        for _ in range(2):
            status, answer = await post(server.client, {"parameters": {"end": "spindle-1"}})
            assert (status, answer["code"], answer["hint"]) == (500, "FF-STORE-006", "ask again in a moment")
        assert (await post(server.client, window()))[0] == 200
