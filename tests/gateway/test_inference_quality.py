"""What an answer says of its inputs: stale, incomplete, unusual; and that nothing without a finite value is answered."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from gateway.config import Inference
from gateway.modelstore import ModelStore, digest
from models.dataset import Rows
from tests.gateway.served import FIELDS, ROWS, SCHEMA, Serving, draft, onnx_model, serving

NAN = float("nan")
SPREADS = {"vibration": {"mean": 2.0, "std": 0.5}, "temperature": {"mean": 40.0, "std": 2.0}}
"""With six standard deviations: -1 to 5 mm/s, 28 to 52 degC."""


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.add("wear", draft("a", inputs=SPREADS), onnx_model(add=0.0))
    store.promote("wear", 1, "test")
    return store


@asynccontextmanager
async def with_rows(models: ModelStore, x: list[list[float]], age_s: float, **options: Any) -> AsyncIterator[Serving]:
    """A server whose end spindle-1 has these rows, one a second, the newest of this age."""
    newest = time.time_ns() - round(age_s * 1e9)
    times = newest - np.arange(len(x) - 1, -1, -1, dtype=np.int64) * 1_000_000_000
    rows = Rows(times, np.array(x), np.zeros(len(x)), np.full(len(x), NAN))
    results: list[Any] = []
    settings = Inference.model_validate(options)
    async with serving(
        models, ends={"spindle-1": SCHEMA}, latest=lambda end, n: rows, settings=settings, write=results.extend
    ) as found:
        yield found
    assert len(results) <= 1
    for result in results:
        assert ("stale" in result.outputs) == (age_s > 10 and settings.on_stale == "flag")


async def ask(server: Serving, **parameters: object) -> tuple[int, dict[str, Any]]:
    body = orjson.dumps({"parameters": {"end": "spindle-1", **parameters}})
    async with server.client.post("/v2/models/wear/infer", data=body) as response:
        return response.status, await response.json()


GOOD = [[2.0, 40.0]] * ROWS


@pytest.mark.parametrize(
    ("options", "parameters", "status", "stale"),
    [
        ({}, {}, 200, None),
        ({"stale_after_s": 100}, {}, 200, None),
        ({"stale_after_s": 10}, {}, 409, None),
        ({"stale_after_s": 10, "on_stale": "flag"}, {}, 200, True),
        ({"stale_after_s": 10, "on_stale": "flag"}, {"max_age_s": 20}, 409, None),
        ({}, {"max_age_s": 20}, 409, None),
    ],
)
async def test_old_windows_are_refused_or_flagged(
    models: ModelStore, options: dict[str, Any], parameters: dict[str, Any], status: int, stale: bool | None
) -> None:
    options = {"on_stale": "refuse", **options}
    async with with_rows(models, GOOD, 60.0, **options) as server:
        found, answer = await ask(server, **parameters)
        assert (found, answer.get("parameters", {}).get("stale")) == (status, stale)
        if status == 200:
            assert answer["parameters"]["age_s"] == pytest.approx(60, abs=30)
        else:
            assert "FF-INFER-010" in answer["error"]


async def test_rows_that_lack_a_value_are_named(models: ModelStore) -> None:
    x = [*GOOD, [NAN, 40.0], *GOOD[:1], [2.0, NAN]]
    async with with_rows(models, x, 0.0) as server:
        _, answer = await ask(server)
    parameters = answer["parameters"]
    assert (parameters["skipped_rows"], parameters["missing"]) == (2, ["vibration", "temperature"])
    assert parameters["age_s"] == pytest.approx(1, abs=30), "of the newest row that was used"


async def test_unusual_values_are_flagged(models: ModelStore) -> None:
    async with with_rows(models, [[2.0, 40.0], [2.0, 90.0], [2.0, 40.0]], 0.0) as server:
        assert (await ask(server))[1]["parameters"]["out_of_range"] == ["temperature"]
    async with with_rows(models, GOOD, 0.0) as server:
        assert "out_of_range" not in (await ask(server))[1]["parameters"]
    async with with_rows(models, GOOD, 0.0, range_sigma=0.1) as server:
        assert "out_of_range" not in (await ask(server))[1]["parameters"], "the mean itself is never unusual"


async def test_each_of_a_batch_has_its_own_flags(models: ModelStore) -> None:
    def body(vibration: float) -> bytes:
        data = [vibration, 40.0] * ROWS
        tensor = {"name": "window", "shape": [1, ROWS, FIELDS], "datatype": "FP32", "data": data}
        return orjson.dumps({"inputs": [tensor]})

    async with serving(models) as server:
        for vibration, flags in ((2.0, None), (50.0, ["vibration"]), (-50.0, ["vibration"]), (5.0, None)):
            async with server.client.post("/v2/models/wear/infer", data=body(vibration)) as response:
                assert (await response.json())["parameters"].get("out_of_range") == flags
        flagged = [
            (sample.labels["flag"], sample.value)
            for family in server.server.collect()
            for sample in family.samples
            if sample.name == "fedfab_inference_flagged_total"
        ]
    assert flagged == [("out_of_range", 2.0)]


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf")])
async def test_what_is_not_finite_is_refused_with_its_place(models: ModelStore, value: float) -> None:
    x = np.full((2, ROWS, FIELDS), 2.0, np.float32)
    x[1, 2, 0] = value
    head = orjson.dumps(
        {
            "inputs": [
                {
                    "name": "window",
                    "shape": x.shape,
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": x.nbytes},
                }
            ]
        }
    )
    headers = {"Inference-Header-Content-Length": str(len(head))}
    async with (
        serving(models) as server,
        server.client.post("/v2/models/wear/infer", data=head + x.tobytes(), headers=headers) as response,
    ):
        assert response.status == 400
        error = (await response.json())["error"]
    assert 'FF-INFER-007: window 1, row 2, field "vibration"' in error


async def test_a_prediction_that_is_not_finite_is_no_answer(models: ModelStore) -> None:
    tensor = {"name": "window", "shape": [1, ROWS, FIELDS], "datatype": "FP32", "data": [3e38] * ROWS * FIELDS}
    async with (
        serving(models) as server,
        server.client.post("/v2/models/wear/infer", data=orjson.dumps({"inputs": [tensor]})) as response,
    ):
        assert (response.status, (await response.json())["code"]) == (422, "FF-INFER-016")


async def test_every_answer_leads_to_its_evidence(models: ModelStore) -> None:
    async with with_rows(models, GOOD, 0.0) as server:
        _, answer = await ask(server)
        url = f"/v2/models/{answer['model_name']}/versions/{answer['model_version']}"
        async with server.client.get(url) as response:
            evidence = (await response.json())["parameters"]["evidence"]
    assert evidence["model_digest"] == answer["parameters"]["model_digest"] == digest(onnx_model(add=0.0))
    assert (evidence["task_id"], evidence["round"]) == (answer["parameters"]["task_id"], 3)
    assert evidence["metrics"] == {"spindle-1": {"rmse": 1.0}}
    assert evidence["inputs"] == SPREADS
