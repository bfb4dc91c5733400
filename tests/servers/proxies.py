"""Proxies as plants have them: tinyproxy (HTTP CONNECT, with a password) and nginx (ends TLS, limits bodies), as real processes."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import free_port, need_program


@contextmanager
def tinyproxy(folder: Path, user: str, password: str, allowed: int) -> Iterator[int]:
    """A proxy that lets those who know the password CONNECT to port ``allowed``; gives its own port."""
    program, port = need_program("tinyproxy", "apt-get install tinyproxy"), free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 50\nLogLevel Warning\n"
        f"Allow 127.0.0.1\nBasicAuth {user} {password}\nConnectPort {allowed}\n"
    )
    with _running([program, "-d", "-c", str(config)], port):
        yield port


@contextmanager
def nginx(folder: Path, identity: Path, target: int, *, ca: Path) -> Iterator[int]:
    """A reverse proxy to ``target`` that demands certificates of members, passes them on, and takes bodies up to 2 MB.

    ``identity`` is the folder of its own certificate (suite intl), for both sides. Gives its port.
    """
    program, port = need_program("nginx", "apt-get install nginx-light"), free_port()
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr warn; worker_rlimit_nofile 1024;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_protocols TLSv1.3;
    ssl_certificate {identity}/intl.crt; ssl_certificate_key {identity}/intl.key;
    ssl_client_certificate {ca}; ssl_verify_client on;
    client_max_body_size 2m;
    location /federation/ {{
      proxy_pass https://127.0.0.1:{target};
      proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Client-Cert $ssl_client_escaped_cert;
      proxy_ssl_certificate {identity}/intl.crt; proxy_ssl_certificate_key {identity}/intl.key;
      proxy_ssl_protocols TLSv1.3;
      proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name localhost; proxy_ssl_server_name on;
      proxy_read_timeout 90s;
    }}
  }}
}}
""")
    with _running([program, "-c", str(config), "-p", str(folder)], port):
        yield port


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        _await_port(process, port)
        yield
    finally:
        process.terminate()
        process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:

    for _ in range(500):
        assert process.poll() is None, f"{process.args!r} has ended"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens on port {port}")
