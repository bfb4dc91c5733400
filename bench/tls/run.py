"""Throughput of uploads and cost of a handshake over plain HTTP, intl and gm, taken in turn in one run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
from aiohttp import web
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))
from trust import pki
from trust.identity import Identity, TrustStore
from trust.keys import SuiteName
from trust.suite import providers
from trust.tls import client_context, server_context

HERE = Path(__file__).parent
SIZES = [64 << 10, 1 << 20, 16 << 20, 64 << 20]
WAYS: tuple[str, ...] = ("plain", *pki.SUITES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(serve(arguments.serve))
        return
    with tempfile.TemporaryDirectory() as folder:
        pki.init(Path(folder), pki.SUITES, "bench")
        identity = pki.issue(Path(folder), pki.Request("a", "gateway", "bench", ["127.0.0.1"]))
        rows = asyncio.run(measure(identity, budget_s=2.0 if arguments.quick else 15.0))
    result = {"providers": providers(), "rows": rows}
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "tls.json").write_text(json.dumps(result, indent=1))
    show(rows)


def _context(identity: Path, way: str, *, server: bool) -> ssl.SSLContext | None:
    if way == "plain":
        return None
    name: SuiteName = "gm" if way == "gm" else "intl"
    make = server_context if server else client_context
    return make(Identity.load(identity, name), TrustStore.load(identity, name))


async def serve(identity: Path) -> None:
    """Take uploads on one port for each way; the ports go to standard output, its end to standard input ends the server."""

    async def take(request: web.Request) -> web.Response:
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
        return web.Response(text=str(size))

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    for way in WAYS:
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener, ssl_context=_context(identity, way, server=True)).start()
        print(listener.getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


async def measure(identity: Path, budget_s: float) -> list[dict[str, object]]:
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", str(identity), stdin=pipe, stdout=pipe
    )
    assert server.stdout is not None
    assert server.stdin is not None
    urls = {}
    for way in WAYS:
        port = int(await server.stdout.readline())
        urls[way] = f"{'http' if way == 'plain' else 'https'}://127.0.0.1:{port}/"
    contexts = {way: _context(identity, way, server=False) for way in WAYS}
    rows: list[dict[str, object]] = []
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for way in WAYS:
            connector = aiohttp.TCPConnector(ssl=contexts[way] or True)
            clients[way] = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        for size in SIZES:
            body = bytes(size)

            async def post(way: str, body: bytes = body) -> None:
                async with clients[way].post(urls[way], data=body) as response:
                    assert int(await response.text()) == len(body)

            rows.append({"bytes": size, **await _in_turn(post, budget_s)})

    async def hello(way: str) -> None:
        connector = aiohttp.TCPConnector(ssl=contexts[way] or True)
        async with aiohttp.ClientSession(connector=connector) as client, client.post(urls[way], data=b"") as response:
            await response.read()

    rows.append({"bytes": 0, **await _in_turn(hello, budget_s)})
    server.stdin.close()
    await server.wait()
    return rows


async def _in_turn(run: object, budget_s: float) -> dict[str, float]:
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    started = time.perf_counter()
    while len(times["gm"]) < 3 or time.perf_counter() - started < budget_s:
        for way in WAYS:
            begin = time.perf_counter()
            await run(way)  # type: ignore[operator]
            times[way].append(time.perf_counter() - begin)
    return {way: statistics.median(taken) for way, taken in times.items()}


def show(rows: list[dict[str, object]]) -> None:
    table = Table("upload", *WAYS)
    for row in rows:
        size, plain = int(row["bytes"]), float(row["plain"])  # type: ignore[call-overload,arg-type]
        cells = []
        for way in WAYS:
            taken = float(row[way])  # type: ignore[arg-type]
            speed = f"{size / taken / 1e6:,.0f} MB/s" if size else f"{1e3 * taken:.1f} ms"
            cells.append(f"{speed} (x {taken / plain:.1f})")
        table.add_row(f"{size >> 10} KiB" if size else "new connection, empty post", *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
