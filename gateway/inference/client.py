"""Asking the daemon on this machine: by its own socket, or where that cannot be opened, over the port it serves predictions on."""

from __future__ import annotations

import http.client
import ssl
from pathlib import Path
from typing import Any

import orjson

from gateway.config import Config
from gateway.errors import GatewayError
from gateway.inference import control

TIMEOUT_S = 10.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to knock when it listens everywhere


def status(config: Config) -> dict[str, Any]:
    """``GET /status`` of the daemon this configuration belongs to. Raises as `get` does."""
    answer: dict[str, Any] = orjson.loads(get(config, "/status"))
    return answer


def get(config: Config, path: str) -> bytes:
    """Any page of the daemon this configuration belongs to.

    Raises GatewayError FF-DAEMON-002 when nobody answers, FF-INFER-026 when the answer is a refusal.
    """
    for connection, where in _ways(config):
        try:
            connection.request("GET", path, headers={"Host": "localhost"})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            failure = f"{where}: {error}"
            continue
        finally:
            connection.close()
        if response.status != 200:
            raise _refused(path, response.status, body)
        return body
    raise GatewayError(
        "FF-DAEMON-002",
        f"no gateway answers at {failure}",
        hint="is it running (fedfab gateway run), with this configuration file, and are you its user or root?",
    )


class _Local(http.client.HTTPConnection):
    """HTTP over the gateway's Unix socket."""

    def __init__(self, at: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._at = at

    def connect(self) -> None:
        self.sock = control.connect(self._at, TIMEOUT_S)


def _ways(config: Config) -> list[tuple[http.client.HTTPConnection, str]]:
    at, settings = control.path(config.gateway.data_dir), config.inference
    host = ANY.get(settings.host, settings.host)
    ways: list[tuple[http.client.HTTPConnection, str]] = [(_Local(at), str(at))]
    if settings.certificate is not None:
        pinned = _pinned(settings.certificate)
        ways.append(
            (
                http.client.HTTPSConnection(host, settings.port, timeout=TIMEOUT_S, context=pinned),
                "https://" + settings.listen,
            )
        )
    elif not settings.identity:
        ways.append((http.client.HTTPConnection(host, settings.port, timeout=TIMEOUT_S), "http://" + settings.listen))
    return ways


def _pinned(certificate: Path) -> ssl.SSLContext:
    """Trust the very certificate the daemon is configured with, whatever name it bears."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _refused(path: str, status: int, body: bytes) -> GatewayError:
    try:
        reason = str(orjson.loads(body)["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        reason = body[:200].decode(errors="replace")
    return GatewayError(
        "FF-INFER-026",
        f"the gateway answers {path} with {status}: {reason}",
        hint="ask as the gateway's user, or as root",
    )
