"""A client that costs next to nothing: prepared requests over kept-alive connections, one at a time on each.

Without a rate each connection asks again as soon as it is answered (full load). With one, requests fall due at even distances whatever the
server does, and the time of each counts from when it was due, so a server that stalls cannot hide it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from urllib.parse import urlsplit

END_OF_HEAD = b"\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection; ``answered`` is called with the time of each answer."""

    def __init__(self, answered: Callable[[Connection, float], None]) -> None:
        self._answered = answered
        self._buffer = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes, due: float) -> None:
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(END_OF_HEAD)
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            if not head.startswith(b"HTTP/1.1 200"):
                sys.exit(f"refused: {self._buffer[:1000]!r}")
            self._buffer = b""
            self._answered(self, time.perf_counter())


async def load(
    url: str, requests: Iterator[bytes], connections: int, seconds: float, rate: float | None
) -> list[float]:
    """Times in seconds: of the requests answered in ``seconds``, or of those that fell due in them."""
    loop = asyncio.get_running_loop()
    times: list[float] = []
    idle: list[Connection] = []
    overdue: deque[float] = deque()
    done = loop.create_future()

    def full(connection: Connection, now: float) -> None:
        times.append(now - connection.due)
        if now < start + seconds:
            connection.ask(next(requests), now)
        elif not done.done():
            done.set_result(None)

    def paced(connection: Connection, now: float) -> None:
        times.append(now - connection.due)
        if overdue:
            connection.ask(next(requests), overdue.popleft())
        else:
            idle.append(connection)
        if len(times) == total:
            done.set_result(None)

    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 80
    answered = full if rate is None else paced
    opened = [await loop.create_connection(lambda: Connection(answered), host, port) for _ in range(connections)]
    start = time.perf_counter()
    if rate is None:
        for _, connection in opened:
            connection.ask(next(requests), start)
    else:
        idle += [connection for _, connection in opened]
        total = max(1, int(rate * seconds))
        for number in range(total):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if idle:
                idle.pop().ask(next(requests), due)
            else:
                overdue.append(due)
    await done
    return times


def request(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A whole request as it goes over the wire."""
    target = urlsplit(url)
    lines = [f"POST {target.path} HTTP/1.1", f"Host: {target.netloc}", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + END_OF_HEAD + body


def signed(url: str, body: bytes, secret: str) -> Iterator[bytes]:
    """Requests of the client "mes", each with a signature of its own."""
    digest, path = hashlib.new("sm3", body).hexdigest(), urlsplit(url).path
    key = hmac.new(secret.encode(), digestmod="sm3")
    while True:
        now, nonce = str(int(time.time())), secrets.token_hex(8)
        mac = key.copy()
        mac.update(f"FEDFAB-HMAC-SM3-1\nmes\n{now}\n{nonce}\nPOST\n{path}\n\n\n{digest}".encode())
        headers = {"X-Fedfab-Client": "mes", "X-Fedfab-Time": now, "X-Fedfab-Nonce": nonce}
        yield request(url, body, {**headers, "X-Fedfab-Signature": mac.hexdigest()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--secret")
    parser.add_argument("--headers", type=json.loads, default={})
    options = parser.parse_args()
    body = options.body.read_bytes()
    whole = request(options.url, body, options.headers)
    requests = signed(options.url, body, options.secret) if options.secret else repeat(whole)
    times = asyncio.run(load(options.url, requests, options.connections, options.seconds, options.rate))
    times.sort()
    print(json.dumps({"count": len(times), "p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}))


if __name__ == "__main__":
    main()
