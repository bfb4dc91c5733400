"""Recordings: every row reaches a reader of each protocol, whatever its pace, and the last run is seen to end."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import duckdb
import pytest
from asyncua.client.client import Client
from pymodbus.client import AsyncModbusTcpClient

from tests.tools.plants import plant, running
from tools.errors import ToolError
from tools.plant.physics import Row
from tools.plant.replay import read

ROWS = 300


def recording(folder: Path) -> str:
    lines = [f"{1 + n // 100},{1 + n % 100},{n},{-n}" for n in range(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["run,cycle,a,b", *lines]))
    return "rows.csv"


def section(protocol: str, folder: Path, tick_s: float) -> str:
    return f'[[replay]]\nname = "r"\nserve = "{protocol}"\nfile = "{recording(folder)}"\ntick_s = {tick_s}\n'


def test_csv_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    csv = tmp_path / recording(tmp_path)
    duckdb.read_csv(str(csv)).write_parquet(str(tmp_path / "rows.parquet"))
    one, other = read(csv), read(tmp_path / "rows.parquet")
    assert one.fields == other.fields == ("a", "b")
    assert list(one.rows()) == list(other.rows())
    assert next(one.rows()) == Row(1, 1, (0.0, 0.0))


@pytest.mark.parametrize("text", ["run,a\n1,2\n", "run,cycle,a\n1,1,high\n", None])
def test_what_is_no_recording_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "rows.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ToolError, match=r"rows\.csv") as caught:
        read(path)
    assert caught.value.code == "FF-PLANT-001"


async def test_a_modbus_poller_sees_each_row_once(tmp_path: Path) -> None:
    seen = []
    async with running(plant(tmp_path, section("modbus", tmp_path, 0.0))) as config:
        client = AsyncModbusTcpClient("127.0.0.1", port=config.modbus.port)
        await client.connect()
        while not seen or seen[-1][0] != 0 or len(seen) < 3:
            registers = (await client.read_holding_registers(0, count=8, device_id=1)).registers
            run, cycle = (
                client.convert_from_registers(registers[at : at + 2], client.DATATYPE.UINT32) for at in (0, 2)
            )
            a = client.convert_from_registers(registers[4:6], client.DATATYPE.FLOAT32)
            if (run, cycle) != (0, 0) and (not seen or (run, cycle, a) != seen[-1]):
                seen.append((run, cycle, a))
        client.close()
    expected = [(1 + n // 100, 1 + n % 100, float(n)) for n in range(ROWS)]
    assert seen == [*expected, (0, 1, float(ROWS - 1))], "then it stands still"


async def test_an_opcua_subscription_gets_every_row_from_the_first(tmp_path: Path) -> None:
    seen: list[float] = []
    still = asyncio.Event()

    class Handler:
        def datachange_notification(self, node: object, value: float, data: object) -> None:
            if str(node).endswith(".a"):
                seen.append(value)
            elif value == 0 and len(seen) > 1:
                still.set()

    async with (
        running(plant(tmp_path, section("opcua", tmp_path, 0.002))) as config,
        Client(config.opcua.endpoint) as client,
    ):
        await asyncio.sleep(0)
        subscription = await client.create_subscription(50, Handler())
        for field in ("a", "run"):
            await subscription.subscribe_data_change([client.get_node(f"ns=2;s=r.{field}")], queuesize=1000)
        await asyncio.wait_for(still.wait(), 30)
    assert seen[-ROWS + 1 :] == [float(n) for n in range(1, ROWS)]


async def test_the_historian_keeps_every_row(tmp_path: Path) -> None:
    count = 0
    async with running(plant(tmp_path, section("sql", tmp_path, 0.0))):
        while count == 0:
            await asyncio.sleep(0.05)
            with sqlite3.connect(tmp_path / "historian.db") as connection:
                (count,) = connection.execute("SELECT count(*) FROM r WHERE run = 0").fetchone()
    with sqlite3.connect(tmp_path / "historian.db") as connection:
        rows = connection.execute("SELECT run, cycle, a, b FROM r WHERE run > 0 ORDER BY id").fetchall()
        times = [time for (time,) in connection.execute("SELECT time_us FROM r ORDER BY id")]
    assert rows == [(1 + n // 100, 1 + n % 100, n, -n) for n in range(ROWS)]
    assert times == sorted(times)
