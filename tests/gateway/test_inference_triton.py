"""NVIDIA's client for the Open Inference Protocol v2 as the judge: what it asks, checks and understands is what the server has to do."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from gateway.config import Inference
from gateway.inference import tls
from gateway.modelstore import ModelStore
from tests.gateway.certificates import Certificates
from tests.gateway.served import FIELDS, ROWS, Serving, draft, onnx_model, serving

T = TypeVar("T")
ONES = np.ones((2, ROWS, FIELDS), np.float32)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Serving]:
    models = ModelStore(tmp_path / "models")
    for i in range(2):
        models.add("wear", draft(str(i)), onnx_model(add=100.0 * i))
    models.promote("wear", 1, "test")
    async with serving(models) as found:
        yield found


@contextmanager
def client(port: int, **options: Any) -> Iterator[triton.InferenceServerClient]:
    found = triton.InferenceServerClient(f"127.0.0.1:{port}", concurrency=4, **options)
    try:
        yield found
    finally:
        found.close()


async def ask(server: Serving, question: Callable[[triton.InferenceServerClient], T], **options: Any) -> T:
    """The client is synchronous: it asks in a thread of its own."""

    def asked() -> T:
        with client(server.port, **options) as found:
            return question(found)

    return await asyncio.to_thread(asked)


def tensor(data: np.ndarray[Any, Any], *, binary: bool) -> list[triton.InferInput]:
    found = triton.InferInput("window", list(data.shape), np_to_triton_dtype(data.dtype))
    found.set_data_from_numpy(data, binary_data=binary)
    return [found]


async def test_health_and_metadata(server: Serving) -> None:
    def question(c: triton.InferenceServerClient) -> list[Any]:
        return [
            c.is_server_live(),
            c.is_server_ready(),
            c.is_model_ready("wear"),
            c.is_model_ready("wear", "2"),
            c.is_model_ready("none"),
            c.get_server_metadata()["name"],
            c.get_model_metadata("wear")["inputs"],
            c.get_model_repository_index(),
        ]

    assert await ask(server, question) == [
        True,
        True,
        True,
        True,
        False,
        "fedfab",
        [{"name": "window", "datatype": "FP32", "shape": [-1, ROWS, FIELDS]}],
        [{"name": "wear", "version": "1", "state": "READY"}],
    ]


@pytest.mark.clause("9.3.4f")
@pytest.mark.parametrize("binary_in", [False, True], ids=["json in", "binary in"])
@pytest.mark.parametrize("binary_out", [False, True, None], ids=["json out", "binary out", "default out"])
async def test_prediction(server: Serving, binary_in: bool, binary_out: bool | None) -> None:
    outputs = None if binary_out is None else [triton.InferRequestedOutput("prediction", binary_data=binary_out)]

    def question(c: triton.InferenceServerClient) -> Any:
        return c.infer("wear", tensor(ONES, binary=binary_in), outputs=outputs, request_id="42")

    answer = await ask(server, question)
    assert answer.as_numpy("prediction").tolist() == [[6.0], [6.0]]
    response = answer.get_response()
    assert (response["id"], response["model_version"], response["parameters"]["task"]) == ("42", "1", "wear")
    assert ("parameters" in answer.get_output("prediction")) is (binary_out is not False)


@pytest.mark.parametrize("kind", ["float16", "float64", "int8", "int64", "uint16", "uint64"])
@pytest.mark.parametrize("binary", [False, True])
async def test_datatypes(server: Serving, kind: str, binary: bool) -> None:
    binary = binary or kind == "float16"  # which the client sends in no other way
    answer = await ask(server, lambda c: c.infer("wear", tensor(ONES.astype(kind), binary=binary)))
    assert answer.as_numpy("prediction").tolist() == [[6.0], [6.0]]


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
async def test_packed_requests(server: Serving, packed: str) -> None:
    answer = await ask(
        server,
        lambda c: c.infer(
            "wear",
            tensor(ONES, binary=True),
            request_compression_algorithm=packed,
            response_compression_algorithm=packed,
        ),
    )
    assert answer.as_numpy("prediction").tolist() == [[6.0], [6.0]]


async def test_many_at_once(server: Serving) -> None:
    def question(c: triton.InferenceServerClient) -> list[float]:
        waiting = [c.async_infer("wear", tensor(ONES * i, binary=True)) for i in range(20)]
        return [float(each.get_result().as_numpy("prediction")[0, 0]) for each in waiting]

    assert await ask(server, question) == [6.0 * i for i in range(20)]


async def test_refusals_are_its_exceptions(server: Serving) -> None:
    def question(c: triton.InferenceServerClient) -> list[tuple[str, str]]:
        wrong = np.ones((1, ROWS, FIELDS + 1), np.float32)
        text = triton.InferInput("window", [1, ROWS, FIELDS], "BYTES")
        text.set_data_from_numpy(np.full((1, ROWS, FIELDS), b"x", np.object_))
        classes = [triton.InferRequestedOutput("prediction", class_count=2)]
        asked: list[Callable[[], Any]] = [
            lambda: c.infer("none", tensor(ONES, binary=True)),
            lambda: c.infer("wear", tensor(ONES, binary=True), model_version="9"),
            lambda: c.infer("wear", tensor(wrong, binary=True)),
            lambda: c.infer("wear", [text]),
            lambda: c.infer("wear", tensor(ONES, binary=True), outputs=classes),
            lambda: c.infer("wear", tensor(np.full_like(ONES, np.nan), binary=True)),
            lambda: c.get_model_config("wear"),
        ]
        found = []
        for each in asked:
            with pytest.raises(InferenceServerException) as refused:
                each()
            found.append((refused.value.status(), refused.value.message().partition(":")[0]))
        return found

    assert await ask(server, question) == [
        ("404", "FF-INFER-001"),
        ("404", "FF-INFER-002"),
        ("400", "FF-INFER-006"),
        ("400", "FF-INFER-005"),
        ("400", "FF-INFER-003"),
        ("400", "FF-INFER-007"),
        ("404", "GET /v2/models/wear/config"),
    ]


async def test_statistics_count_what_was_asked(server: Serving) -> None:
    def question(c: triton.InferenceServerClient) -> Any:
        for _ in range(3):
            c.infer("wear", tensor(ONES, binary=True))
        return c.get_inference_statistics("wear")["model_stats"][0]

    found = await ask(server, question)
    assert (found["name"], found["version"], found["inference_count"]) == ("wear", "1", 3)
    assert found["inference_stats"]["success"]["count"] == 3
    assert found["inference_stats"]["compute_infer"]["ns"] > 0


async def test_mutual_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "pki")
    settings = Inference(
        certificate=certificates.of("127.0.0.1"),
        key=certificates.key("127.0.0.1"),
        client_ca=certificates.ca,
        client=[{"name": "mes", "certificate": "mes.plant.example"}],  # type: ignore[arg-type]
    )
    models = ModelStore(tmp_path / "models")
    models.add("wear", draft("a"), onnx_model(add=0.0))
    models.promote("wear", 1, "test")
    async with serving(models, settings=settings, tls=tls.context(settings, None)) as server:
        # in a process of its own: the client's TLS comes by gevent, which cannot share an event loop's process
        for name, expected in (("mes.plant.example", "True 6.0"), ("other.plant.example", "FF-INFER-020")):
            done = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                _MUTUAL,
                str(server.port),
                str(certificates.ca),
                str(certificates.of(name)),
                str(certificates.key(name)),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=os.environ | {"PYTHONWARNINGS": "ignore"},
            )
            out, err = await done.communicate()
            assert expected in out.decode(), err.decode()


_MUTUAL = """
import sys
import gevent.ssl
import numpy as np
from tritonclient import http
from tritonclient.utils import InferenceServerException

port, ca, certificate, key = sys.argv[1:]
client = http.InferenceServerClient(
    f"127.0.0.1:{port}", ssl=True,
    ssl_context_factory=lambda: (lambda c: (c.load_cert_chain(certificate, key), c)[1])(gevent.ssl.create_default_context(cafile=ca)),
)
window = http.InferInput("window", [1, 3, 2], "FP32")
window.set_data_from_numpy(np.ones((1, 3, 2), np.float32))
try:
    print(client.is_server_live(), client.infer("wear", [window]).as_numpy("prediction")[0, 0])
except InferenceServerException as refused:
    print(refused.message())
"""
