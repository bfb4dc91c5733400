"""Who may ask: signatures, certificates, the gateway's own socket, and nobody else."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import ClientSession, web
from pydantic import ValidationError

from common.secret import SecretError
from gateway.config import Config, Inference
from gateway.errors import GatewayError
from gateway.inference import client as local
from gateway.inference import control, tls
from gateway.inference.signature import CLIENT, NONCE, SIGNATURE, TIME, Claim, Signed, sign, signature
from gateway.modelstore import ModelStore
from tests.conftest import ROOT, need_program
from tests.gateway.certificates import Certificates
from tests.gateway.served import FIELDS, ROWS, Serving, draft, onnx_model, serving

SECRET = "0123456789abcdef0123456789abcdef"
INFER = "/v2/models/wear/infer"
BODY = orjson.dumps(
    {"inputs": [{"name": "window", "shape": [1, ROWS, FIELDS], "datatype": "FP32", "data": [1.0] * ROWS * FIELDS}]}
)


@pytest.fixture
def models(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "models")
    store.add("wear", draft("a"), onnx_model(add=0.0))
    store.promote("wear", 1, "test")
    return store


def secret(folder: Path, text: str = SECRET, mode: int = 0o600) -> dict[str, Path]:
    file = folder / "mes.secret"
    file.write_text(text + "\n")
    file.chmod(mode)
    return {"file": file}


def settings(folder: Path, **more: Any) -> Inference:
    clients = [
        {"name": "mes", "secret": secret(folder)},
        {"name": "watcher", "secret": secret(folder), "allow": ["status", "metrics"]},
    ]
    return Inference.model_validate({"client": clients, **more})


@pytest.fixture
async def server(models: ModelStore, tmp_path: Path) -> AsyncIterator[Serving]:
    async with serving(models, settings=settings(tmp_path)) as found:

        async def page(request: web.BaseRequest) -> web.Response:
            return web.Response(text="metrics")

        found.server.page("/metrics", "metrics", page)
        yield found


def signed(body: bytes = BODY, *, name: str = "mes", target: str = INFER, method: str = "POST") -> dict[str, str]:
    return sign(name, SECRET, Signed(method, target, {}, body))


async def post(client: ClientSession, headers: dict[str, str], body: bytes = BODY) -> tuple[int, str]:
    async with client.post(INFER, data=body, headers=headers) as response:
        return response.status, (await response.json()).get("code", "")


async def get(client: ClientSession, path: str, name: str | None = None) -> tuple[int, str]:
    headers = signed(b"", name=name, target=path, method="GET") if name else {}
    async with client.get(path, headers=headers) as response:
        body = await response.read()
        return response.status, orjson.loads(body).get("code", "") if response.status >= 400 else ""


async def test_a_signed_request_is_answered_once(server: Serving) -> None:
    headers = signed()
    assert await post(server.client, headers) == (200, "")
    assert await post(server.client, headers) == (401, "FF-INFER-023")
    assert await post(server.client, signed()) == (200, "")


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, ""),
        ({SIGNATURE: "0" * 64}, "FF-INFER-021"),
        ({SIGNATURE: "short"}, "FF-INFER-021"),
        ({NONCE: "short"}, "FF-INFER-021"),
        ({TIME: "now"}, "FF-INFER-021"),
        ({CLIENT: "nobody"}, "FF-INFER-021"),
        ({"Content-Encoding": "gzip"}, "FF-INFER-021"),
        ({"Inference-Header-Content-Length": "2"}, "FF-INFER-021"),
    ],
)
async def test_a_signature_covers_what_was_sent(server: Serving, changed: dict[str, str], code: str) -> None:
    assert await post(server.client, signed() | changed) == (401 if code else 200, code)


async def test_a_signature_is_for_one_body_and_one_path(server: Serving) -> None:
    assert await post(server.client, signed(), BODY + b" ") == (401, "FF-INFER-021")
    assert await post(server.client, signed(target=INFER + "?x=1")) == (401, "FF-INFER-021")
    assert await post(server.client, {}) == (401, "FF-INFER-020")


@pytest.mark.parametrize("off_s", [-100, 3600])
async def test_a_clock_that_is_wrong_is_told_by_how_much(server: Serving, off_s: int) -> None:
    claim = Claim("mes", str(int(time.time()) + off_s), "n" * 16, "")
    found = signature(SECRET, claim, Signed("POST", INFER, {}, BODY))
    headers = {CLIENT: claim.client, TIME: claim.time, NONCE: claim.nonce, SIGNATURE: found}
    async with server.client.post(INFER, data=BODY, headers=headers) as response:
        error = (await response.json())["error"]
    words = r"signed 10\d s before" if off_s < 0 else r"signed 3[56]\d\d s after"
    assert re.search(rf"FF-INFER-022: .*{words} this gateway's time; at most 30 s", error), error


async def test_rights_are_each_client_s_own(server: Serving) -> None:
    assert await get(server.client, "/v2/health/live") == (200, "")
    assert await get(server.client, "/status") == (401, "FF-INFER-020")
    assert await get(server.client, "/metrics") == (401, "FF-INFER-020")
    assert await get(server.client, "/status", "mes") == (403, "FF-INFER-025")
    assert await get(server.client, "/status", "watcher") == (200, "")
    assert await get(server.client, "/metrics", "watcher") == (200, "")
    assert await get(server.client, "/v2/models", "mes") == (200, "")
    assert await post(server.client, signed(name="watcher")) == (403, "FF-INFER-025")
    denied = {
        sample.labels["code"]: sample.value
        for family in server.server.collect()
        for sample in family.samples
        if sample.name == "fedfab_inference_denied_total"
    }
    assert denied == {"FF-INFER-020": 2, "FF-INFER-025": 2}


async def test_results_say_who_asked(models: ModelStore, tmp_path: Path) -> None:
    results: list[Any] = []
    async with serving(models, settings=settings(tmp_path), write=results.extend) as server:
        await post(server.client, signed())
    assert results[0].outputs["client"] == "mes"


async def test_open_lets_anybody_in(models: ModelStore, tmp_path: Path) -> None:
    async with serving(models, settings=settings(tmp_path, open=["infer"])) as server:
        assert await post(server.client, {}) == (200, "")
        assert await get(server.client, "/status") == (401, "FF-INFER-020")


async def test_a_new_secret_counts_from_the_reload_on(server: Serving, tmp_path: Path) -> None:
    assert await post(server.client, signed()) == (200, "")
    other = Inference.model_validate({"client": [{"name": "mes", "secret": secret(tmp_path, "f" * 32)}]})
    server.server.apply(other)
    assert await post(server.client, signed()) == (401, "FF-INFER-021")
    with pytest.raises(GatewayError, match=r"FF-INFER-017.*has 5 characters"):
        server.server.apply(
            Inference.model_validate({"client": [{"name": "mes", "secret": secret(tmp_path, "short")}]})
        )
    with pytest.raises(SecretError, match="FF-SECRET-002"):
        server.server.apply(
            Inference.model_validate({"client": [{"name": "mes", "secret": secret(tmp_path, mode=0o644)}]})
        )
    headers = sign("mes", "f" * 32, Signed("POST", INFER, {}, BODY))
    assert await post(server.client, headers) == (200, "")


async def test_certificates_name_clients(models: ModelStore, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "pki")
    here = {
        "certificate": certificates.of("127.0.0.1"),
        "key": certificates.key("127.0.0.1"),
        "client_ca": certificates.ca,
    }
    strangers = Certificates(tmp_path / "other")

    def showing(of: Certificates | None, name: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(certificates.ca))
        if of is not None:
            context.load_cert_chain(of.of(name), of.key(name))
        return context

    async def ask(server: Serving, context: ssl.SSLContext) -> tuple[int, str] | str:
        try:
            async with (
                ClientSession(f"https://127.0.0.1:{server.port}") as client,
                client.post(INFER, data=BODY, ssl=context) as response,
            ):
                return response.status, (await response.json()).get("code", "")
        except OSError as error:
            return type(error).__name__

    async with serving(models, settings=(all_of := Inference(**here)), tls=tls.context(all_of, None)) as server:
        assert await ask(server, showing(certificates, "anybody.example")) == (200, "")
        assert isinstance(await ask(server, showing(None)), str), "the handshake already refuses"
        assert isinstance(await ask(server, showing(strangers, "mes.example")), str)
    listed = settings(tmp_path, **here)
    clients = [*listed.clients, {"name": "scada", "certificate": "scada.example", "allow": ["infer", "status"]}]
    listed = Inference.model_validate({**here, "client": clients})
    async with serving(models, settings=listed, tls=tls.context(listed, None)) as server:
        assert await ask(server, showing(certificates, "scada.example")) == (200, "")
        assert await ask(server, showing(certificates, "anybody.example")) == (401, "FF-INFER-020")
        assert await ask(server, showing(None)) == (401, "FF-INFER-020")
        assert isinstance(await ask(server, showing(strangers, "scada.example")), str)


async def test_the_gateway_s_own_socket(models: ModelStore, tmp_path: Path) -> None:
    """The command line needs neither secret nor certificate, whatever the network side demands, however long the path is."""
    data = tmp_path / ("long-" * 30)
    data.mkdir()
    config = Config.model_validate(
        {"gateway": {"name": "g", "data_dir": data}, "inference": {"open": [], "listen": "127.0.0.1:1"}}
    )
    at = control.path(data)
    at.write_text("left over")
    async with serving(models, settings=config.inference, control_socket=at) as server:
        assert stat.S_IMODE(at.stat().st_mode) == 0o600
        assert await asyncio.to_thread(local.status, config) == {"gateway": "test"}
        assert await get(server.client, "/status") == (401, "FF-INFER-020")
        at.unlink()
        over_network = config.model_copy(update={"inference": Inference(listen=f"127.0.0.1:{server.port}", open=())})
        with pytest.raises(GatewayError, match=r"FF-INFER-026.*/status with 401"):
            await asyncio.to_thread(local.status, over_network)
    with pytest.raises(GatewayError, match="FF-DAEMON-002"):
        await asyncio.to_thread(local.status, config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"listen": "0.0.0.0:1", "certificate": "c", "key": "k"}, "somebody has to be let in"),
        ({"client_ca": "c"}, "client_ca needs certificate and key"),
        ({"client": [{"name": "a"}]}, "a secret or by a certificate"),
        ({"client": [{"name": "a", "certificate": "a"}]}, "client_ca is required"),
        ({"client": [{"name": "a", "secret": {"env": "A"}}] * 2}, 'two clients are called "a"'),
        ({"client": [{"name": "a", "secret": "abc"}]}, "does not stand in the configuration"),
        ({"identity": True, "certificate": "c", "key": "k"}, "the one or the others"),
        ({"body_mib": 512}, "more than memory_mib"),
    ],
)
def test_settings_that_would_let_in_too_many_or_nobody(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Inference.model_validate(options)


def test_what_needs_no_proof() -> None:
    tls_files = {"certificate": "c", "key": "k"}
    assert "status" in Inference().anybody
    assert Inference.model_validate({"client": [{"name": "a", "secret": {"env": "A"}}]}).anybody == ()
    assert Inference.model_validate({"listen": "0.0.0.0:1", **tls_files, "client_ca": "ca"}).anybody == ()
    assert Inference.model_validate({"listen": "0.0.0.0:1", **tls_files, "open": ["infer"]}).anybody == ("infer",)


@pytest.mark.server("openssl")
@pytest.mark.parametrize("language", ["sh", "python"])
async def test_the_documented_clients_work(server: Serving, tmp_path: Path, language: str) -> None:
    """The examples of docs/inference.md as they stand there, against a running server."""
    need_program("openssl", "apt-get install openssl")
    need_program("curl", "apt-get install curl")
    page = (ROOT / "docs/inference.md").read_text()
    (example,) = re.findall(rf"```{language}\n(# sign.*?)```", page, flags=re.DOTALL)
    (tmp_path / "body.json").write_bytes(BODY)
    text = example.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{server.port}").replace("wear-spindles", "wear")
    script = tmp_path / "example"
    script.write_text(text)
    program = ["sh", "-eu"] if language == "sh" else [sys.executable]
    done = await asyncio.to_thread(
        subprocess.run, [*program, script], cwd=tmp_path, capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert '"data":[6.0]' in done.stdout.replace(" ", "").replace("'", '"'), done
