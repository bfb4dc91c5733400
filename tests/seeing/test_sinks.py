"""Who is told of an alert, by real receivers: an HTTPS server, a Mosquitto with TLS and a password, an SMTP server with STARTTLS."""

from __future__ import annotations

import asyncio
import email
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from gateway.config import Alerts
from gateway.errors import GatewayError
from gateway.seeing.rules import Event
from gateway.seeing.sinks import SIGNATURE, SIGNED_AT, signature, sinks
from gateway.seeing.watch import trial
from tests.conftest import free_port, need_program
from trust import pki

EVENT = Event("fired", "no-data", "critical", {"source": "press"}, 130.0, 120.0, "press is silent", 1000.0, 1130.0)
PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with intl.crt and intl.key of a server on 127.0.0.1, and ca.intl.crt of its CA."""
    folder = tmp_path_factory.mktemp("sinks")
    pki.init(folder / "ca", ["intl"], "Test Works")
    pki.issue(folder / "ca", pki.Request("server", "coordinator", "Test Works", ["127.0.0.1", "localhost"]))
    return folder / "ca" / "issued" / "server"


@pytest.fixture
def secret(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    def written(text: str) -> dict[str, str]:
        path = tmp_path / f"secret-{len(list(tmp_path.iterdir()))}"
        path.touch(mode=0o600)
        path.write_text(text + "\n")
        return {"file": str(path)}

    return written


def server_side(tls: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "intl.crt", tls / "intl.key")
    return context


async def tell(kind: str, **options: Any) -> None:
    """The event through one sink of this configuration."""
    (sink,) = sinks(Alerts.model_validate({kind: [{"name": "shift-leader", **options}]}), "gateway-a")
    await sink.send(EVENT)


@asynccontextmanager
async def receiver(tls: Path, status: int = 200) -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """An HTTPS server that takes whatever comes; its address, and what came."""
    came: list[web.BaseRequest] = []

    async def take(request: web.BaseRequest) -> web.Response:
        await request.read()
        came.append(request)
        return web.Response(status=status)

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_side(tls))
    await site.start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}/hook", came
    finally:
        await runner.cleanup()


async def test_a_webhook_gets_signed_json_over_tls(tls: Path, secret: Callable[[str], dict[str, str]]) -> None:
    async with receiver(tls) as (url, came):
        await tell(
            "webhook", url=url, ca=str(tls / "ca.intl.crt"), hmac=secret(PASSWORD), authorization=secret("Bearer t0ken")
        )
    (request,) = came
    body = await request.read()
    said = json.loads(body)
    assert (said["gateway"], said["alert"], said["what"], said["severity"]) == ("gateway-a", "no-data", "fired", "critical")  # fmt: skip
    assert (said["labels"], said["value"], said["message"]) == ({"source": "press"}, 130.0, "press is silent")
    assert request.headers["Authorization"] == "Bearer t0ken"
    assert request.headers[SIGNATURE] == signature(PASSWORD, request.headers[SIGNED_AT], body)
    assert request.headers[SIGNATURE] != signature("another key", request.headers[SIGNED_AT], body)


async def test_a_webhook_that_refuses_redirects_or_cannot_be_trusted_says_so_without_its_secret_address(
    tls: Path, secret: Callable[[str], dict[str, str]]
) -> None:
    async with receiver(tls, status=302) as (url, _):
        with pytest.raises(GatewayError, match="status 302"):
            await tell("webhook", url=url, ca=str(tls / "ca.intl.crt"))
        with pytest.raises(GatewayError, match=r'FF-ALERT-001: sink "shift-leader" was not told') as untrusted:
            await tell("webhook", url_secret=secret(f"{url}?token=s3cret"))
        with pytest.raises(GatewayError) as away:
            await tell("webhook", url_secret=secret(f"https://127.0.0.1:{free_port()}/?token=s3cret"))
        with pytest.raises(GatewayError) as none:
            await tell("webhook", url_secret=secret("ftp://s3cret"))
    assert "s3cret" not in f"{untrusted.value}{away.value}{none.value}"


@contextmanager
def broker(folder: Path, tls: Path) -> Iterator[int]:
    """A Mosquitto that wants TLS and a password."""
    program = need_program("mosquitto", "apt-get install mosquitto")
    passwords = need_program("mosquitto_passwd", "apt-get install mosquitto")
    port = free_port()
    subprocess.run([passwords, "-b", "-c", folder / "passwords", "fedfab", PASSWORD], check=True, capture_output=True)
    (folder / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\nuser root\n"
        f"certfile {tls}/intl.crt\nkeyfile {tls}/intl.key\ncafile {tls}/ca.intl.crt\n"
    )
    with subprocess.Popen(
        [program, "-v", "-c", folder / "mosquitto.conf"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "running" not in (line := process.stderr.readline()):
            assert line, "mosquitto has ended"
        yield port
        process.kill()


@pytest.mark.server("mosquitto")
async def test_a_broker_gets_the_alert_over_tls_and_wants_the_password(
    tmp_path: Path, tls: Path, secret: Callable[[str], dict[str, str]]
) -> None:
    ca = tls / "ca.intl.crt"
    with broker(tmp_path, tls) as port:
        options = {"host": "127.0.0.1", "port": port, "ca": str(ca), "user": "fedfab"}
        async with aiomqtt.Client(
            "127.0.0.1", port, username="fedfab", password=PASSWORD, tls_context=ssl.create_default_context(cafile=ca)
        ) as client:
            await client.subscribe("fedfab/#", qos=1)
            await tell("mqtt", **options, password=secret(PASSWORD))
            async with asyncio.timeout(10):
                message = await anext(aiter(client.messages))
        assert str(message.topic) == "fedfab/gateway-a/alert/no-data"
        assert isinstance(message.payload, bytes)
        assert json.loads(message.payload)["message"] == "press is silent"
        with pytest.raises(GatewayError, match=r"shift-leader.*(authori|credentials|refused)") as refused:
            await tell("mqtt", **options, password=secret("wr0ng"))
        assert "wr0ng" not in str(refused.value)


class Postbox:
    """Keeps what is delivered, from the one user there is."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        mail = email.message_from_bytes(envelope.original_content or b"", policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 taken"


@contextmanager
def post_office(tls: Path, *, starttls: bool) -> Iterator[tuple[int, Postbox]]:
    """An SMTP server that takes mail over TLS only, and only with the password."""

    def known(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object) -> AuthResult:
        good = isinstance(data, LoginPassword) and data.password == PASSWORD.encode()
        return AuthResult(success=good, handled=good)

    postbox, port = Postbox(), free_port()
    encryption: dict[str, Any] = {"tls_context": server_side(tls), "require_starttls": True}
    if not starttls:
        encryption = {"ssl_context": server_side(tls), "auth_require_tls": False}
    controller = Controller(
        postbox, hostname="127.0.0.1", port=port, authenticator=known, auth_required=True, **encryption
    )
    controller.start()
    try:
        yield port, postbox
    finally:
        controller.stop()


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_mail_arrives_over_tls_with_the_password(
    tls: Path, security: str, secret: Callable[[str], dict[str, str]]
) -> None:
    with post_office(tls, starttls=security == "starttls") as (port, postbox):
        options = {
            "host": "127.0.0.1", "port": port, "security": security, "ca": str(tls / "ca.intl.crt"),
            "user": "fedfab", "sender": "gateway@plant.example", "to": ["shift@plant.example", "it@plant.example"],
        }  # fmt: skip
        await tell("email", **options, password=secret(PASSWORD))
        with pytest.raises(GatewayError, match="FF-ALERT-001") as refused:
            await tell("email", **options, password=secret("wr0ng"))
    assert "wr0ng" not in str(refused.value)
    (mail,) = postbox.mails
    assert mail["Subject"] == "ALERT critical: gateway-a no-data"
    assert mail["To"] == "shift@plant.example, it@plant.example"
    assert "press is silent" in mail.get_content()
    assert "source: press" in mail.get_content()


async def test_a_trial_reaches_every_sink_and_tells_of_those_it_did_not(tls: Path) -> None:
    async with receiver(tls) as (url, came):
        found = await trial(
            Alerts.model_validate(
                {
                    "webhook": [
                        {"name": "good", "url": url, "ca": str(tls / "ca.intl.crt"), "least": "critical"},
                        {"name": "away", "url": f"https://127.0.0.1:{free_port()}"},
                    ]
                }
            ),
            "gateway-a",
            0.0,
        )
    assert [(name, error and error.code) for name, error in found] == [("good", None), ("away", "FF-ALERT-001")]
    assert json.loads(await came[0].read())["alert"] == "trial"
