"""A federated round of Flower's deployment engine: a SuperLink, a SuperNode for each end, an app run on them; loopback, without TLS."""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
VENV = HERE / ".venv"
VERSION = "1.41.0"


def install() -> None:
    """Flower in a virtual environment of its own, once."""
    if not (VENV / "bin" / "flwr").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", f"flwr=={VERSION}", "numpy"], check=True)


def run(options: argparse.Namespace, folder: Path) -> None:
    """Start all, say `round N` on standard output as rounds end, stop all."""
    install()
    ports = free_ports(options.ends + 1)
    log = folder / "rounds"
    log.touch()
    (folder / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{ports[0]}"\ninsecure = true\n'
    )
    binaries = VENV / "bin"
    environment = os.environ | {
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "ROUND_LOG": str(log),
        "PATH": f"{binaries}:{os.environ['PATH']}",
    }
    quiet = (folder / "log").open("wb")

    def start(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, cwd=folder)

    link = ("--insecure", "--disable-runtime-dependency-installation", "--port", str(ports[0]))
    servers = [start(str(binaries / "flower-superlink"), *link)]
    try:
        wait_for(ports[0])
        for port in ports[1:]:
            node = ("--insecure", "--superlink", f"127.0.0.1:{ports[0]}", "--port", str(port))
            servers.append(start(str(binaries / "flower-supernode"), *node))
        configuration = f"ends={options.ends} params={options.params} rounds={options.rounds}"
        app = start(str(binaries / "flwr"), "run", str(HERE / "flower"), "bench", "--run-config", configuration)
        if app.wait() != 0:
            raise SystemExit(f"flwr run failed:\n{(folder / 'log').read_text()[-2000:]}")
        follow(log, time.monotonic() + 900)
    finally:
        for server in reversed(servers):
            server.terminate()
        for server in servers:
            server.wait()


def follow(log: Path, until: float) -> None:
    """Pass on what the app writes, until it says `over`."""
    with log.open() as lines:
        while time.monotonic() < until:
            line = lines.readline()
            if not line:
                time.sleep(0.005)
            elif "over" in line:
                return
            else:
                print(line.split(" ", 1)[1].strip(), flush=True)
    raise SystemExit("Flower did not finish in 15 minutes")


def wait_for(port: int) -> None:
    """Until something listens."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the SuperLink did not start")


def free_ports(count: int) -> list[int]:
    """Loopback ports free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ends", type=int, default=10)
    parser.add_argument("--params", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=3)
    with TemporaryDirectory(prefix="fedfab-flower-") as temporary:
        run(parser.parse_args(), Path(temporary))
