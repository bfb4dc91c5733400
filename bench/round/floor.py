"""The floor: what a round costs with nothing but aiohttp. Every client fetches the parameters and posts its update; plain HTTP."""

from __future__ import annotations

import argparse
import asyncio
import sys

import aiohttp
import numpy as np
from aiohttp import web


class Rounds:
    """The server's whole state: parameters, the sum of updates so far, who waits for the next round."""

    def __init__(self, size: int, ends: int, rounds: int) -> None:
        self.params = np.zeros(size, dtype=np.float32)
        self.ends, self.rounds = ends, rounds
        self.round, self.arrived = 1, 0
        self.sum = np.zeros(size, dtype=np.float32)
        self.next = asyncio.Event()
        self.over = asyncio.Event()

    async def get(self, request: web.Request) -> web.Response:
        wanted = int(request.match_info["round"])
        while self.round < wanted:
            await self.next.wait()
        return web.Response(body=memoryview(self.params).cast("B"))

    async def post(self, request: web.Request) -> web.Response:
        self.sum += np.frombuffer(await request.read(), dtype=np.float32)
        self.arrived += 1
        if self.arrived == self.ends:
            self.params, self.sum = self.sum / self.ends, np.zeros_like(self.sum)
            print(f"round {self.round}", flush=True)
            self.round, self.arrived = self.round + 1, 0
            ready, self.next = self.next, asyncio.Event()
            ready.set()
            if self.round > self.rounds:
                self.over.set()
        return web.Response()


async def serve(options: argparse.Namespace) -> None:
    rounds = Rounds(options.params, options.ends, options.rounds)
    app = web.Application(client_max_size=1 << 32)
    app.add_routes([web.get("/{round}", rounds.get), web.post("/", rounds.post)])
    runner = web.AppRunner(app, access_log=None, read_bufsize=1 << 20)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    port = runner.addresses[0][1]
    command = [sys.executable, __file__, "--params", str(options.params), "--rounds", str(options.rounds)]
    clients = [await asyncio.create_subprocess_exec(*command, "--port", str(port)) for _ in range(options.ends)]
    await rounds.over.wait()
    for client in clients:
        await client.wait()
    await runner.cleanup()


async def learn(options: argparse.Namespace) -> None:
    noise = np.random.default_rng().standard_normal(options.params, dtype=np.float32)
    async with aiohttp.ClientSession(read_bufsize=1 << 20) as http:
        for number in range(1, options.rounds + 1):
            async with http.get(f"http://127.0.0.1:{options.port}/{number}") as response:
                params = np.frombuffer(await response.read(), dtype=np.float32)
            update = params + noise
            async with http.post(f"http://127.0.0.1:{options.port}/", data=memoryview(update).cast("B")):
                pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ends", type=int, default=10)
    parser.add_argument("--params", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--port", type=int)
    arguments = parser.parse_args()
    asyncio.run(learn(arguments) if arguments.port else serve(arguments))
