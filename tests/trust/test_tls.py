"""Real servers and clients on loopback, in both suites: who gets in, who does not, and what they are told."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from OpenSSL import SSL
from structlog.testing import capture_logs

from trust import pki
from trust.errors import TrustError
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName
from trust.tls import client_context, peer, server_context

BOTH_CIPHERS = {"gm": "TLS_SM4_GCM_SM3", "intl": "TLS_AES_256_GCM_SHA384"}


def _who(folder: Path, suite: SuiteName) -> tuple[Identity, TrustStore]:
    return Identity.load(folder, suite), TrustStore.load(folder, suite)


@asynccontextmanager
async def _server(folder: Path, suite: SuiteName) -> AsyncIterator[str]:
    """A server that says who called, over what, and how much came."""
    identity, trust = _who(folder, suite)

    async def answer(request: web.Request) -> web.Response:
        try:
            caller = peer(request.transport, trust)
        except TrustError as error:
            return web.json_response({"code": error.code}, status=403)
        assert request.transport is not None
        cipher, version, _ = request.transport.get_extra_info("cipher")
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        return web.json_response({"name": caller.name, "role": caller.role, "tls": [version, cipher], "size": size})

    app = web.Application()
    app.router.add_route("*", "/", answer)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, listener, ssl_context=server_context(identity, trust)).start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}/"
    finally:
        await runner.cleanup()


def _client(folder: Path, suite: SuiteName) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(ssl=client_context(*_who(folder, suite)), family=socket.AF_INET)
    return aiohttp.ClientSession(connector=connector)


def _issue(ca: Path, name: str, out: Path, *, past: bool = False) -> Path:
    """An identity folder of its own for a test that changes it."""
    now = datetime.now(UTC) - timedelta(days=30) if past else None
    folder = pki.issue(ca, pki.Request(name, "gateway", "Test Works", ["localhost"]), out, days=1, now=now)
    for suite in pki.SUITES:  # a revocation list of today
        shutil.copy(ca / suite / "crl.pem", folder / f"crl.{suite}.pem")
    return folder


@pytest.fixture
def own_ca(tmp_path: Path) -> Path:
    """A CA of its own, for tests that revoke."""
    folder = tmp_path / "ca"
    pki.init(folder, pki.SUITES, "Own Works")
    pki.issue(folder, pki.Request("cloud", "coordinator", "Own Works", ["localhost"]))
    return folder


@pytest.mark.clause("9.4.1.3a")
@pytest.mark.clause("9.4.1.3c")
@pytest.mark.clause("9.3.1c")
@pytest.mark.clause("9.2.4")
async def test_both_ends_know_each_other(ca: Path, suite_name: SuiteName) -> None:
    issued = ca / "issued"
    async with _server(issued / "cloud", suite_name) as url, _client(issued / "gateway-a", suite_name) as client:
        async with client.get(url) as response:
            answer = await response.json()
        assert (answer["name"], answer["role"]) == ("gateway-a", "gateway")
        assert answer["tls"] == ["TLSv1.3", BOTH_CIPHERS[suite_name]]
        async with client.get(url.replace("localhost", "127.0.0.1")) as response:
            assert response.status == 200
        identity, trust = _who(issued / "gateway-a", suite_name)
        port = int(url.split(":")[2][:-1])
        _, writer = await asyncio.open_connection("localhost", port, ssl=client_context(identity, trust))
        server = peer(writer.transport, trust)
        assert (server.name, server.role) == ("cloud", "coordinator")
        writer.close()
        await writer.wait_closed()


@pytest.mark.clause("9.4.1.3b")
async def test_gm_is_sm2_sm3_sm4_and_nothing_else(ca: Path) -> None:
    folder = ca / "issued" / "gateway-a"
    async with _server(ca / "issued" / "cloud", "gm") as url:
        port = int(url.split(":")[2][:-1])
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_file(str(folder / "gm.crt"))
        context.use_privatekey_file(str(folder / "gm.key"))
        connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", port)))
        connection.set_connect_state()
        with pytest.raises(SSL.Error, match="handshake failure"):
            await asyncio.to_thread(connection.do_handshake)


@pytest.mark.parametrize("size", [0, 1, 16 * 1024 + 1, 3_000_000])
async def test_bodies_arrive_whole(ca: Path, suite_name: SuiteName, size: int) -> None:
    issued = ca / "issued"
    async with _server(issued / "cloud", suite_name) as url, _client(issued / "gateway-a", suite_name) as client:
        for _ in range(2):
            async with client.post(url, data=bytes(size)) as response:
                assert (await response.json())["size"] == size


@pytest.mark.clause("9.3.1c")
async def test_a_client_of_another_ca_is_refused(ca: Path, own_ca: Path, suite_name: SuiteName) -> None:
    stranger = _issue(own_ca, "gateway-a", own_ca / "stranger")
    shutil.copy(ca / suite_name / "ca.crt", stranger / f"ca.{suite_name}.crt")
    shutil.copy(ca / suite_name / "crl.pem", stranger / f"crl.{suite_name}.pem")
    identity = Identity.load(own_ca / "issued" / "cloud", suite_name)  # theirs, but trusting our server
    context = client_context(identity, TrustStore.load(stranger, suite_name))
    async with _server(ca / "issued" / "cloud", suite_name) as url:
        await _refused(url, context, "FF-TRUST-026")


@pytest.mark.clause("9.3.1c")
async def test_a_server_of_another_ca_is_refused(ca: Path, own_ca: Path, suite_name: SuiteName) -> None:
    async with (
        _server(own_ca / "issued" / "cloud", suite_name) as url,
        _client(ca / "issued" / "gateway-a", suite_name) as client,
    ):
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="FF-TRUST-026"):
            await client.get(url)


async def test_a_server_of_another_name_is_refused(ca: Path, suite_name: SuiteName) -> None:
    issued = ca / "issued"
    async with _server(issued / "gateway-b", suite_name) as url, _client(issued / "gateway-a", suite_name) as client:
        for host in ("localhost", "127.0.0.1"):
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match=f"FF-TLS-002.*'{host}'"):
                await client.get(url.replace("localhost", host))


async def test_expired_certificates_are_refused_on_both_sides(own_ca: Path, suite_name: SuiteName) -> None:
    old = _issue(own_ca, "old", own_ca / "old", past=True)
    with pytest.raises(TrustError) as caught:
        Identity.load(old, suite_name)
    assert caught.value.code == "FF-TRUST-022"
    expired = _without_checks(old, suite_name)
    fresh = _issue(own_ca, "fresh", own_ca / "fresh")
    async with _server(own_ca / "issued" / "cloud", suite_name) as url:
        await _refused(url, client_context(expired, TrustStore.load(fresh, suite_name)), "FF-TRUST-022")
    listener = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(),
        sock=listener,
        ssl=server_context(expired, TrustStore.load(fresh, suite_name)),
    )
    async with server, _client(fresh, suite_name) as client:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="FF-TRUST-022"):
            await client.get(f"https://localhost:{listener.getsockname()[1]}/")


@pytest.mark.clause("9.3.1c")
async def test_a_revoked_client_is_refused_also_on_a_connection_it_has(own_ca: Path, suite_name: SuiteName) -> None:
    cloud, gateway = own_ca / "issued" / "cloud", _issue(own_ca, "gateway-x", own_ca / "x")
    async with _server(cloud, suite_name) as url, _client(gateway, suite_name) as client:
        async with client.get(url) as response:
            assert response.status == 200
        pki.revoke(own_ca, "gateway-x")
        shutil.copy(own_ca / suite_name / "crl.pem", cloud / f"crl.{suite_name}.pem")
        async with client.get(url) as response:
            assert (response.status, await response.json()) == (403, {"code": "FF-TRUST-024"})
        await _refused(url, client_context(*_who(gateway, suite_name)), "FF-TRUST-024")


async def test_a_revoked_server_is_refused(own_ca: Path, suite_name: SuiteName) -> None:
    gateway = _issue(own_ca, "gateway-x", own_ca / "x")
    async with _server(own_ca / "issued" / "cloud", suite_name) as url, _client(gateway, suite_name) as client:
        pki.revoke(own_ca, "cloud")
        shutil.copy(own_ca / suite_name / "crl.pem", gateway / f"crl.{suite_name}.pem")
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="FF-TRUST-024"):
            await client.get(url)


@pytest.mark.clause("9.3.1c")
async def test_a_client_without_certificate_is_refused(ca: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca / "intl" / "ca.crt"))
    async with _server(ca / "issued" / "cloud", "intl") as url:
        await _refused(url, context, "FF-TLS-001")


async def test_a_gm_client_without_certificate_is_refused(ca: Path) -> None:
    context = client_context(*_who(ca / "issued" / "gateway-a", "gm"))
    bare = SSL.Context(SSL.TLS_METHOD)
    bare.set_tls13_ciphersuites(b"TLS_SM4_GCM_SM3")
    library = SSL._lib  # type: ignore[attr-defined]
    assert library.SSL_CTX_set1_curves_list(bare._context, b"curveSM2") == 1
    assert library.SSL_CTX_set1_sigalgs_list(bare._context, b"sm2sig_sm3") == 1
    context._openssl = bare  # type: ignore[attr-defined]
    async with _server(ca / "issued" / "cloud", "gm") as url:
        await _refused(url, context, "FF-TLS-001")


@pytest.mark.parametrize(("server", "client"), [("gm", "intl"), ("intl", "gm")])
async def test_suites_do_not_meet_and_say_so(ca: Path, server: SuiteName, client: SuiteName) -> None:
    async with _server(ca / "issued" / "cloud", server) as url, _client(ca / "issued" / "gateway-a", client) as session:
        with pytest.raises(aiohttp.ClientConnectorSSLError, match=r"FF-TLS-001(.|\n)*same `\[trust\] suite`"):
            await session.get(url)


@pytest.mark.clause("9.4.1.3a")
async def test_tls_1_2_is_refused(ca: Path) -> None:
    """The standard asks for 1.2 at least; 1.3 is the least we take."""
    context = ssl.create_default_context(cafile=str(ca / "intl" / "ca.crt"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with _server(ca / "issued" / "cloud", "intl") as url:
        await _refused(url, context, "FF-TLS-001")


async def test_plain_http_has_no_peer(trust: TrustStore) -> None:
    with pytest.raises(TrustError) as caught:
        peer(None, trust)
    assert caught.value.code == "FF-TLS-004"


async def test_junk_and_hang_ups_leave_the_server_standing(ca: Path, suite_name: SuiteName) -> None:
    issued = ca / "issued"
    async with _server(issued / "cloud", suite_name) as url, _client(issued / "gateway-a", suite_name) as client:
        port = int(url.split(":")[2][:-1])
        for junk in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello"):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(junk)
            await writer.drain()
            writer.close()
        async with client.get(url) as response:
            assert response.status == 200


def _without_checks(folder: Path, suite: SuiteName) -> Identity:
    """An identity that `Identity.load` refuses, as someone who ignores the refusal would use it."""
    patch = pytest.MonkeyPatch()
    peer = Identity.load(folder.parent / "issued" / "cloud", suite).peer
    patch.setattr(TrustStore, "verify", lambda _self, pem: _renamed(peer, pem, suite))
    try:
        return Identity.load(folder, suite)
    finally:
        patch.undo()


def _renamed(peer: object, pem: bytes, suite: SuiteName) -> object:
    from dataclasses import replace

    from trust.certificate import public_key

    return replace(peer, certificate=pem, public=public_key(pem, suite))  # type: ignore[type-var]


async def _refused(url: str, context: ssl.SSLContext, code: str) -> None:
    """The server lets nothing through, its log says why, and the client is told at least that."""
    with capture_logs() as logs:
        connector = aiohttp.TCPConnector(ssl=context, family=socket.AF_INET)
        async with aiohttp.ClientSession(connector=connector) as client:
            with pytest.raises(aiohttp.ClientError, match=r"FF-TLS-001|alert|[Dd]isconnected|[Rr]eset"):
                await client.get(url)
    assert [entry for entry in logs if code in str(entry.get("reason"))], logs
