"""Many requests at once: what is computed together, what waits, what is refused, and that a swap under load fails nobody."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from aiohttp import ClientSession

from gateway.config import Inference
from gateway.modelstore import ModelStore
from models.dataset import Rows
from tests.gateway.served import FIELDS, ROWS, SCHEMA, Serving, draft, onnx_model, serving, slow_model

SLOW_MS = 40


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    for i in range(3):
        store.add("wear", draft(str(i)), onnx_model(add=100.0 * i))
    store.add("slow", draft("slow"), slow_model(SLOW_MS))
    for name in ("wear", "slow"):
        store.promote(name, 1, "test")
    return store


@pytest.fixture
async def server(models: ModelStore) -> AsyncIterator[Serving]:
    async with serving(models) as found:
        yield found


def body(value: float = 1.0, n: int = 1, **more: object) -> bytes:
    data = [value] * n * ROWS * FIELDS
    tensor = {"name": "window", "shape": [n, ROWS, FIELDS], "datatype": "FP32", "data": data}
    return orjson.dumps({"inputs": [tensor], **more})


async def infer(client: ClientSession, data: bytes, model: str = "wear", **headers: str) -> tuple[int, dict[str, Any]]:
    async with client.post(f"/v2/models/{model}/infer", data=data, headers=headers) as response:
        return response.status, {**await response.json(), "headers": dict(response.headers)}


def samples(server: Serving, name: str) -> dict[tuple[str, ...], float]:
    """Values of a metric by its labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in server.server.collect()
        for sample in family.samples
        if sample.name == name
    }


async def until(true: Callable[[], bool]) -> None:
    """Give the server its turns until this holds."""
    for _ in range(100_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


@pytest.mark.clause("8.10.2")
@pytest.mark.clause("9.4.3i")
async def test_dozens_of_swaps_under_load_fail_no_request(server: Serving, models: ModelStore) -> None:
    seen: list[tuple[int, str, float]] = []
    done = asyncio.Event()

    async def ask(number: int) -> None:
        while not done.is_set():
            status, answer = await infer(server.client, body(number))
            value = answer["outputs"][0]["data"][0] - ROWS * FIELDS * number
            seen.append((status, answer["model_version"], value))

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(ask(number))
        for turn in range(40):
            version = str(models.promote("wear", turn % 3 + 1, "test").version)
            if turn % 4 == 3:
                version = str(models.roll_back("wear", "test").version)
            assert (await infer(server.client, body()))[1]["model_version"] == version
        done.set()
    assert len(seen) > 40
    assert set(seen) <= {(200, "1", 0.0), (200, "2", 100.0), (200, "3", 200.0)}
    assert {version for _, version, _ in seen} == {"1", "2", "3"}


async def test_what_waits_together_is_computed_together(server: Serving) -> None:
    """While one run of a slow model goes on, others gather; they are one run then, and each has its own answer."""
    answers = await asyncio.gather(*(infer(server.client, body(i), "slow") for i in range(12)))
    assert [answer["outputs"][0]["data"] for _, answer in answers] == [[6.0 * i] for i in range(12)]
    runs = samples(server, "fedfab_inference_batch_windows_count")["slow",]
    assert runs < 12
    assert samples(server, "fedfab_inference_batch_windows_sum")["slow",] == 12


async def test_a_batch_has_a_bound(models: ModelStore) -> None:
    async with serving(models, settings=Inference(max_batch=4)) as server:
        await asyncio.gather(*(infer(server.client, body(i, n=2), "slow") for i in range(8)))
        buckets = samples(server, "fedfab_inference_batch_windows_bucket")
        assert buckets["slow", "4.0"] == buckets["slow", "+Inf"] >= 4


async def test_a_full_queue_is_told_and_holds_up_no_other_model(models: ModelStore) -> None:
    async with serving(models, settings=Inference(max_queue=3, max_batch=1)) as server:
        slow = [asyncio.create_task(infer(server.client, body(), "slow")) for _ in range(12)]
        quick = [await infer(server.client, body()) for _ in range(5)]
        assert not all(task.done() for task in slow)
        assert {status for status, _ in quick} == {200}
        found = await asyncio.gather(*slow)
        refused = [answer for status, answer in found if status == 429]
        assert 0 < len(refused) < 12
        assert {status for status, _ in found} == {200, 429}
        assert "FF-INFER-014" in refused[0]["error"]
        assert int(refused[0]["headers"]["Retry-After"]) >= 1
        assert samples(server, "fedfab_inference_requests_total")["slow", "1", "429"] == len(refused)


async def test_a_crowd_that_comes_at_once_is_not_refused(models: ModelStore) -> None:
    """More in one turn of the event loop than may wait: they do not wait, as the model is quick."""
    async with serving(models, settings=Inference(max_queue=8, max_batch=8)) as server:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(64)]
        question = body()
        head = f"POST /v2/models/wear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(question)}\r\n\r\n".encode()
        for _, writer in opened:
            writer.write(head + question)
        statuses = [(await reader.readline()).split()[1] for reader, _ in opened]
        for _, writer in opened:
            writer.close()
    assert set(statuses) == {b"200"}


async def test_a_turn_that_does_not_come_is_told_and_not_computed(models: ModelStore) -> None:
    models.add("slower", draft("slower"), slow_model(10 * SLOW_MS))
    models.promote("slower", 1, "test")
    async with serving(models, settings=Inference(max_batch=1)) as server:
        first = asyncio.create_task(infer(server.client, body(), "slower"))
        await until(lambda: samples(server, "fedfab_inference_queue_depth") == {("slower",): 0})  # it is being computed
        status, answer = await infer(server.client, body(parameters={"timeout": 1000}), "slower")  # microseconds
        assert (status, answer.get("code")) == (503, "FF-INFER-015")
        assert (await first)[0] == 200
        assert (await infer(server.client, body(), "slower"))[0] == 200
        assert samples(server, "fedfab_inference_batch_windows_sum")["slower",] == 2


async def test_who_hangs_up_is_not_computed(models: ModelStore) -> None:
    async with serving(models, settings=Inference(max_batch=1)) as server:
        tasks = [asyncio.create_task(infer(server.client, body(), "slow")) for _ in range(4)]
        await until(lambda: samples(server, "fedfab_inference_queue_depth").get(("slow",), 0) == 3)
        for task in tasks[1:]:
            task.cancel()
        assert (await tasks[0])[0] == 200
        await until(lambda: samples(server, "fedfab_inference_in_flight")[()] == 0)
        assert (await infer(server.client, body(), "slow"))[0] == 200
        assert samples(server, "fedfab_inference_batch_windows_sum")["slow",] < 4


async def test_too_many_at_one_time(models: ModelStore) -> None:
    async with serving(models, settings=Inference(max_requests=2)) as server:
        found = await asyncio.gather(*(infer(server.client, body(), "slow") for _ in range(6)))
        refused = [answer for status, answer in found if status == 429]
        assert len(refused) == 4
        assert "FF-INFER-013" in refused[0]["error"]
        assert (await infer(server.client, body(), "slow"))[0] == 200


async def test_bodies_have_a_bound(models: ModelStore) -> None:
    async with serving(models, settings=Inference(body_mib=1, memory_mib=1)) as server:
        large = b" " * (1 << 20) + body()
        for data, headers in (
            (large, {}),
            (gzip.compress(large), {"Content-Encoding": "gzip"}),
            (gzip.compress(b" " * (100 << 20)), {"Content-Encoding": "gzip"}),
        ):
            status, answer = await infer(server.client, data, **headers)
            assert (status, "FF-INFER-018" in answer["error"]) == (413, True)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b" " * (1 << 16)

        async with server.client.post("/v2/models/wear/infer", data=pieces()) as response:
            assert response.status == 413
        assert (await infer(server.client, gzip.compress(body()), **{"Content-Encoding": "gzip"}))[0] == 200
        assert samples(server, "fedfab_inference_in_flight_bytes")[()] == 0


@pytest.mark.parametrize(
    ("data", "encoding", "status"),
    [(b"no gzip", "gzip", 400), (gzip.compress(b"{}", mtime=0)[:-1], "gzip", 400), (b"{}", "br", 415)],
)
async def test_bodies_that_cannot_be_unpacked(server: Serving, data: bytes, encoding: str, status: int) -> None:
    found, answer = await infer(server.client, data, **{"Content-Encoding": encoding})
    assert (found, answer["code"]) == (status, "FF-INFER-003")


async def test_a_body_that_does_not_arrive(models: ModelStore) -> None:
    async with serving(models, settings=Inference(timeout_s=0.05)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v2/models/wear/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.clause("8.10.2")
async def test_ready_means_that_models_can_answer(models: ModelStore) -> None:
    models.add("broken", draft("b"), b"no ONNX")
    models.promote("broken", 1, "test")
    async with serving(models) as server:
        async with server.client.get("/v2/health/ready") as response:
            assert response.status == 503
            (entry,) = (await response.json())["unavailable"]
            assert (entry["name"], entry["state"]) == ("broken", "UNAVAILABLE")
        status, answer = await infer(server.client, body(), "broken")
        assert (status, answer["code"]) == (503, "FF-INFER-012")
        assert (await infer(server.client, body()))[0] == 200
        models.add("broken", draft("c"), onnx_model(add=0.0))
        models.promote("broken", 2, "test")
        async with server.client.get("/v2/health/ready") as response:
            assert response.status == 200


async def test_those_who_ask_together_share_one_read(models: ModelStore) -> None:
    reads: list[str] = []
    held, entered = threading.Event(), threading.Event()

    def latest(end: str, n: int) -> Rows:
        reads.append(end)
        entered.set()
        held.wait(10)
        return Rows(np.arange(n), np.full((n, FIELDS), float(len(reads))), np.zeros(n), np.zeros(n))

    async with serving(models, ends={"spindle-1": SCHEMA}, latest=latest) as server:
        question = orjson.dumps({"parameters": {"end": "spindle-1"}})
        first = asyncio.create_task(infer(server.client, question))
        await asyncio.to_thread(entered.wait, 10)
        others = [asyncio.create_task(infer(server.client, question)) for _ in range(5)]
        await until(lambda: samples(server, "fedfab_inference_in_flight")[()] == 6)
        held.set()
        values = [answer["outputs"][0]["data"] for _, answer in await asyncio.gather(first, *others)]
    assert values == [[6.0], *([[12.0]] * 5)], "the second read began after they had asked"
    assert len(reads) == 2


async def test_settings_change_while_it_serves(server: Serving) -> None:
    assert (await infer(server.client, body()))[0] == 200
    server.server.apply(Inference(body_mib=1, memory_mib=1, open=("status",)))
    status, answer = await infer(server.client, body())
    assert (status, answer["code"]) == (401, "FF-INFER-020")
    server.server.apply(Inference())
    assert (await infer(server.client, body()))[0] == 200
