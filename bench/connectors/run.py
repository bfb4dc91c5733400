"""CPU time of the connectors for each value, from the wire to a batch of samples, against foreign servers on loopback.

    .venv/bin/python -m bench.connectors.run [--seconds 10]

Servers are processes of their own, so this process's CPU time is the connector's. Result: bench/connectors/results/connectors.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from connectors import registry
from connectors.contract import Connector
from tests.servers.modbus import ModbusServer
from tests.servers.opcua import OpcUaServer

TAGS = 5000
REGISTERS = 1000
ROWS, COLUMNS = 100_000, 10


def create(section: dict[str, Any]) -> Connector:
    kind = registry.get(section["type"])
    return kind.create(kind.config.model_validate({"name": "bench", **section}))


async def opcua(folder: Path, seconds: float) -> dict[str, float]:
    """All of 5,000 variables change as often as the server can."""
    with OpcUaServer(folder, tags=TAGS) as server:
        tags = [{"name": f"t{i}", "node": f"ns=2;s=Press.Tag{i}"} for i in range(TAGS)]
        section = {"type": "opcua", "endpoint": server.endpoint, "publishing_s": 0.2, "sampling_s": 0.0, "tag": tags}
        reader = create(section)
        await reader.start(None)
        await count(reader, TAGS)

        async def sweep() -> int:
            await asyncio.to_thread(server.sweep, time.monotonic())
            return await count(reader, TAGS)

        return await measure(reader, sweep, seconds)


async def modbus(folder: Path, seconds: float) -> dict[str, float]:
    """1,000 registers, polled as fast as the server answers."""
    with ModbusServer(folder) as server:
        tags = [{"name": f"t{i}", "address": i} for i in range(REGISTERS)]
        reader = create({"type": "modbus", "host": "127.0.0.1", "port": server.port, "every_s": 0.001, "tag": tags})
        await reader.start(None)
        return await measure(reader, lambda: count(reader, REGISTERS), seconds)


async def sql(folder: Path, seconds: float) -> dict[str, float]:
    """100,000 rows of ten columns from SQLite; the driver runs in this process and counts."""
    file = folder / "plant.db"
    names = [f"c{i}" for i in range(COLUMNS)]
    connection = sqlite3.connect(file)
    connection.execute(f"CREATE TABLE t (id INTEGER PRIMARY KEY, at INTEGER, {', '.join(names)})")
    rows = ((i, i, *([i / 7] * COLUMNS)) for i in range(ROWS))
    connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * (COLUMNS + 2))})", rows)
    connection.commit()
    connection.close()
    tags = [{"name": name, "column": name} for name in names]
    url = f"sqlite:///{file}"
    reader = create({"type": "sql", "url": url, "table": "t", "cursor": "id", "time": "at", "batch": 1000, "tag": tags})
    await reader.start(None)
    left = ROWS * COLUMNS

    async def batch() -> int:
        nonlocal left
        got = await count(reader, 1)
        left -= got
        if left == 0:
            await reader.stop()
            await reader.start(None)
            left = ROWS * COLUMNS
        return got

    return await measure(reader, batch, seconds)


async def count(reader: Connector, least: int) -> int:
    got = 0
    while got < least:
        batch = await reader.read()
        got += len(batch.samples)
        await batch.acknowledge()
    return got


async def measure(reader: Connector, step: Callable[[], Awaitable[int]], seconds: float) -> dict[str, float]:
    values, wall, cpu = 0, time.monotonic(), time.process_time()
    while time.monotonic() - wall < seconds:
        values += await step()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    await reader.stop()
    return {"values": values, "values_per_s": round(values / wall), "cpu_us_per_value": round(1e6 * cpu / values, 2)}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    results: dict[str, dict[str, float]] = {}
    for bench in (opcua, modbus, sql):
        with TemporaryDirectory() as folder:
            results[bench.__name__] = await bench(Path(folder), seconds)
        print(bench.__name__, results[bench.__name__])
    target = Path(__file__).parent / "results" / "connectors.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    asyncio.run(main())
