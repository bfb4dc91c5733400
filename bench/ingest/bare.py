"""The ceiling: the library a connector stands on, which counts values and does nothing with them.

    python -m bench.ingest.bare opcua ENDPOINT TAGS
    python -m bench.ingest.bare modbus PORT REGISTERS EVERY_S

Says "ready", and for each line on its standard input how many values have come.
"""

from __future__ import annotations

import asyncio
import logging
import sys

COUNT = 0


async def opcua(endpoint: str, tags: int) -> None:
    """asyncua's own subscription with the same intervals."""
    from asyncua import Client, ua

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)

    class Handler:
        def datachange_notification(self, *_: object) -> None:
            global COUNT  # noqa: PLW0603
            COUNT += 1

    async with Client(endpoint, timeout=30) as client:
        subscription = await client.create_subscription(500, Handler())
        nodes = [client.get_node(f"ns=2;s=Press.Tag{i}") for i in range(tags)]
        for start in range(0, tags, 1000):
            part = nodes[start : start + 1000]
            await subscription.subscribe_data_change(part, ua.AttributeIds.Value, queuesize=200, sampling_interval=0)
        await talk()


async def modbus(port: int, registers: int, every_s: float) -> None:
    """pymodbus in full blocks at the same rhythm."""
    global COUNT  # noqa: PLW0603
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    talking = asyncio.create_task(talk())
    due = asyncio.get_running_loop().time()
    while not talking.done():
        for start in range(0, registers, 125):
            count = min(125, registers - start)
            answer = await client.read_holding_registers(start % 4000, count=count, device_id=1)
            COUNT += len(answer.registers)
        due += every_s
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))


async def talk() -> None:
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(COUNT, flush=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    asyncio.run(opcua(rest[0], int(rest[1])) if kind == "opcua" else modbus(*map(int, rest[:2]), float(rest[2])))
