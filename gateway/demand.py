"""Has the gateway that runs take its changed file over, for the command line."""

from __future__ import annotations

import os
import signal
import time

from gateway.config import Config
from gateway.errors import GatewayError
from gateway.inference import client

_ASK_S = 0.1


def reload(config: Config, *, timeout_s: float = 60.0) -> None:
    """Have the running gateway of this configuration take its file over, and wait until it has.

    Raises GatewayError FF-DAEMON-002 where none runs, FF-RELOAD-002 where it refuses, -003 where it does not come to an end.
    """
    before = client.status(config)
    os.kill(before["pid"], signal.SIGHUP)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(_ASK_S)
        after = client.status(config)["configuration"]
        if after["tried"] > before["configuration"]["tried"]:
            if after["refused"] is not None:
                raise GatewayError("FF-RELOAD-002", f"the gateway keeps its old configuration: {after['refused']}")
            return
    raise GatewayError(
        "FF-RELOAD-003",
        f"the gateway has not said within {timeout_s:g} s whether it took the file over",
        hint="its log has more; a source that does not let go of its machine holds it up",
    )
