"""Who is told of an alert: a webhook, an MQTT broker, a mailbox. Each says one event at a time and raises where it could not.

`gateway.seeing.notify` owns the queues, the retries and what is dropped; here is only how each is spoken to.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import smtplib
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Protocol

import aiohttp
import aiomqtt
import orjson

from common.errors import FedfabError
from gateway.config import Alerts, Email, Mqtt, Webhook
from gateway.config.seeing import Sink as SinkConfig
from gateway.errors import GatewayError
from gateway.seeing.rules import Event

TIMEOUT_S = 10.0
SIGNATURE, SIGNED_AT = "X-Fedfab-Signature", "X-Fedfab-Time"


class Sink(Protocol):
    """One receiver of alerts."""

    @property
    def config(self) -> SinkConfig:
        """Its section."""
        ...

    async def send(self, event: Event) -> None:
        """Say it once. Raises GatewayError FF-ALERT-001 where it was not taken."""
        ...


def sinks(alerts: Alerts, gateway: str) -> list[Sink]:
    """All receivers of the configuration; ``gateway`` is the name they are told."""
    return [
        *(WebhookSink(each, gateway) for each in alerts.webhooks),
        *(MqttSink(each, gateway) for each in alerts.mqtt),
        *(EmailSink(each, gateway) for each in alerts.emails),
    ]


class WebhookSink:
    """POST of JSON; with a key, signed together with the time, so that a receiver can refuse what is forged or old."""

    def __init__(self, config: Webhook, gateway: str) -> None:
        self.config = config
        self._gateway = gateway

    async def send(self, event: Event) -> None:
        """See `Sink.send`: any status of 2xx means that it was taken."""
        with _explained(self.config.name):
            body, now = _body(event, self._gateway), str(int(time.time()))
            headers = {"Content-Type": "application/json", SIGNED_AT: now}
            if self.config.hmac is not None:
                headers[SIGNATURE] = signature(self.config.hmac.read(), now, body)
            if self.config.authorization is not None:
                headers["Authorization"] = self.config.authorization.read()
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as http,
                http.post(
                    self.config.address(), data=body, headers=headers, ssl=_tls(self.config.ca), allow_redirects=False
                ) as response,
            ):
                if not 200 <= response.status < 300:
                    raise OSError(f"it answered with status {response.status}")


class MqttSink:
    """A message of quality of service 1 to a broker; the connection lasts for one message, alerts are rare."""

    def __init__(self, config: Mqtt, gateway: str) -> None:
        self.config = config
        self._gateway = gateway

    async def send(self, event: Event) -> None:
        """See `Sink.send`: it was taken when the broker has acknowledged it."""
        mqtt = self.config
        with _explained(mqtt.name):
            context = None
            if mqtt.tls:
                context = _tls(mqtt.ca)
                if mqtt.certificate and mqtt.key:
                    context.load_cert_chain(mqtt.certificate, mqtt.key)
            async with (
                asyncio.timeout(TIMEOUT_S),
                aiomqtt.Client(
                    mqtt.host,
                    mqtt.port,
                    username=mqtt.user,
                    password=mqtt.password.read() if mqtt.password else None,
                    tls_context=context,
                ) as client,
            ):
                topic = mqtt.topic.replace("{gateway}", self._gateway).replace("{alert}", event.alert)
                await client.publish(topic, _body(event, self._gateway), qos=1)


class EmailSink:
    """A mail over SMTP, encrypted, sent from a thread."""

    def __init__(self, config: Email, gateway: str) -> None:
        self.config = config
        self._gateway = gateway

    async def send(self, event: Event) -> None:
        """See `Sink.send`: it was taken when the server has accepted it for every address."""
        with _explained(self.config.name):
            await asyncio.to_thread(self._send, _mail(event, self._gateway, self.config))

    def _send(self, mail: EmailMessage) -> None:
        email = self.config
        if email.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(email.host, email.port, timeout=TIMEOUT_S, context=_tls(email.ca))
        else:
            server = smtplib.SMTP(email.host, email.port, timeout=TIMEOUT_S)
        with server:
            if email.security == "starttls":
                server.starttls(context=_tls(email.ca))
            if email.user is not None and email.password is not None:
                server.login(email.user, email.password.read())
            refused = server.send_message(mail)
        if refused:
            raise OSError(f"it refused {', '.join(refused)}")


def signature(key: str, at: str, body: bytes) -> str:
    """What X-Fedfab-Signature holds: HMAC-SHA-256 (RFC 2104) of the time in seconds, a dot and the body."""
    return "sha256=" + hmac.new(key.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Say of any failure to send which sink it was and why, and never a secret."""
    try:
        yield
    except Exception as error:
        why = error.message if isinstance(error, FedfabError) else _why(error)
        raise GatewayError(
            "FF-ALERT-001",
            f'sink "{name}" was not told: {why}',
            hint="try it with: fedfab gateway alerts test; address, certificate and password are those of the sink in [alerts]",
        ) from None


def _why(error: Exception) -> str:
    """Without the address: that of a webhook may be a secret."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT_S:g} s"
    if isinstance(error, aiohttp.InvalidURL):
        return "its URL is none"
    return str(error) or type(error).__name__


def _tls(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _body(event: Event, gateway: str) -> bytes:
    return orjson.dumps({"gateway": gateway, **event.to_json()})


_WORDS: dict[str, str] = {"fired": "ALERT", "repeated": "STILL", "cleared": "CLEARED"}


def _mail(event: Event, gateway: str, config: Email) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"] = config.sender, ", ".join(config.to)
    mail["Subject"] = f"{_WORDS[event.what]} {event.severity}: {gateway} {event.alert}"
    mail["Date"], mail["Message-ID"] = formatdate(event.at), make_msgid(domain=config.sender.partition("@")[2])
    lines = [
        event.message or event.alert,
        "",
        f"gateway: {gateway}",
        *(f"{name}: {value}" for name, value in event.labels.items()),
        f"value: {'gone' if event.value is None else f'{event.value:.6g}'} (threshold {event.threshold:g})",
        f"since: {formatdate(event.since)}",
    ]
    mail.set_content("\n".join(lines) + "\n")
    return mail
