"""Asking the daemon on this machine, over the port it serves predictions on."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import orjson

from gateway.config import Inference
from gateway.errors import GatewayError

TIMEOUT_S = 10.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to knock when it listens everywhere


def status(config: Inference) -> dict[str, Any]:
    """``GET /status`` of the daemon this configuration belongs to. Raises GatewayError FF-DAEMON-002 when nobody answers."""
    host = ANY.get(config.host, config.host)
    address = f"[{host}]:{config.port}" if ":" in host else f"{host}:{config.port}"
    url = f"{'https' if config.certificate else 'http'}://{address}/status"
    try:
        with urlopen(url, timeout=TIMEOUT_S, context=_pinned(config)) as response:  # noqa: S310 - http or https, as above
            answer: dict[str, Any] = orjson.loads(response.read())
            return answer
    except (URLError, OSError, ValueError) as error:
        raise GatewayError(
            "FF-DAEMON-002",
            f"no gateway answers at {url}: {error}",
            hint="is it running (fedfab gateway run), with this configuration file?",
        ) from error


def _pinned(config: Inference) -> ssl.SSLContext | None:
    """Trust the very certificate the daemon is configured with, whatever name it bears."""
    if config.certificate is None:
        return None
    context = ssl.create_default_context(cafile=str(config.certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context
