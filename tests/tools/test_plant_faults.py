"""Faults on demand: the same ones for the same seed, and a client of each protocol sees them on the wire."""

from __future__ import annotations

import asyncio
import math
import sqlite3
from pathlib import Path

from asyncua import ua
from asyncua.client.client import Client
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.constants import ExcCodes

from tests.tools.plants import plant, running
from tools.plant.config import Fault
from tools.plant.faults import Injector, Reading
from tools.plant.physics import Row


def through(*faults: Fault, cycles: int = 10, seed: int = 1) -> list[Reading | None]:
    injector = Injector(faults, ("a", "b"), seed=seed, name="m")
    return [injector.apply(Row(1, n, (float(n), -float(n))), n * 10**9) for n in range(1, cycles + 1)]


def test_without_faults_everything_passes() -> None:
    assert through(cycles=2) == [Reading(10**9, 1, 1, (1.0, -1.0)), Reading(2 * 10**9, 1, 2, (2.0, -2.0))]


def test_a_drop_out_swallows_its_cycles() -> None:
    assert [reading is None for reading in through(Fault(kind="dropout", at=(3,), cycles=2), cycles=5)] == [
        False, False, True, True, False,
    ]  # fmt: skip


def test_a_frozen_field_stays_while_the_others_go_on() -> None:
    found = through(Fault(kind="frozen", fields=("a",), at=(3,), cycles=2), cycles=5)
    assert [reading.values for reading in found if reading] == [(1, -1), (2, -2), (2, -3), (2, -4), (5, -5)]


def test_a_bad_field_has_no_value() -> None:
    found = through(Fault(kind="bad", fields=("b",), at=(2,)), cycles=3)
    assert [reading.values for reading in found if reading] == [(1, -1), (2, None), (3, -3)]


def test_the_clock_jumps_and_comes_back() -> None:
    found = through(Fault(kind="clock", at=(2,), jump_s=-5.0), cycles=3)
    assert [reading.time_ns for reading in found if reading] == [10**9, -3 * 10**9, 3 * 10**9]


def test_faults_by_chance_follow_the_seed() -> None:
    fault = Fault(kind="dropout", probability=0.3)
    one, same, other = (through(fault, cycles=100, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert 10 < sum(reading is None for reading in one) < 60


async def test_opcua_clients_see_bad_values_and_clock_jumps(tmp_path: Path) -> None:
    config = plant(
        tmp_path,
        '[[machine]]\nname = "s"\nkind = "spindle"\nserve = "opcua"\n'
        '[[machine.fault]]\nkind = "bad"\nfields = ["vibration"]\nat = [3]\ncycles = 2\n'
        '[[machine.fault]]\nkind = "clock"\nat = [5]\njump_s = 3600.0\n',
        head="tick_s = 0.01\nwait_for_readers = true",
    )
    seen: dict[str, list[ua.DataValue]] = {"vibration": [], "cycle": []}
    enough = asyncio.Event()

    class Handler:
        def datachange_notification(self, node: object, value: object, data: object) -> None:
            field = str(node).rpartition(".")[2]
            seen[field].append(data.monitored_item.Value)  # type: ignore[attr-defined]
            if len(seen["cycle"]) > 8:
                enough.set()

    async with running(config), Client(config.opcua.endpoint) as client:
        subscription = await client.create_subscription(20, Handler())
        nodes = [client.get_node(f"ns=2;s=s.{field}") for field in seen]
        await subscription.subscribe_data_change(nodes, queuesize=1000)
        await asyncio.wait_for(enough.wait(), 20)
    bad = [value for value in seen["vibration"] if not value.StatusCode.is_good()]
    assert [value.StatusCode.name for value in bad] == ["BadSensorFailure"], "one change to bad, and one back"
    assert all(value.Value.Value is None for value in bad)
    times = {value.Value.Value: value.SourceTimestamp for value in seen["cycle"]}
    assert 3500 < (times[5] - times[4]).total_seconds() < 3700
    assert -3700 < (times[6] - times[5]).total_seconds() < -3500


async def test_modbus_units_answer_nan_or_not_at_all(tmp_path: Path) -> None:
    config = plant(
        tmp_path,
        '[[machine]]\nname = "p"\nkind = "pump"\nserve = "modbus"\n'
        '[[machine.fault]]\nkind = "bad"\nfields = ["flow"]\nat = [1]\ncycles = 1000000\n'
        '[[machine]]\nname = "q"\nkind = "pump"\nserve = "modbus"\n'
        '[[machine.fault]]\nkind = "dropout"\nat = [1]\ncycles = 1000000\n',
        head="wait_for_readers = true\ntick_s = 0.01",
    )
    async with running(config):
        client = AsyncModbusTcpClient("127.0.0.1", port=config.modbus.port)
        await client.connect()
        cycle = 0
        while cycle == 0:
            answer = await client.read_holding_registers(0, count=18, device_id=1)
            cycle = client.convert_from_registers(answer.registers[2:4], client.DATATYPE.UINT32)
        values = client.convert_from_registers(answer.registers[4:], client.DATATYPE.FLOAT32)
        assert [math.isnan(value) for value in values] == [False, False, False, True, False, False, False]
        while not (silent := await client.read_holding_registers(0, count=2, device_id=2)).isError():
            pass
        assert silent.exception_code == ExcCodes.GATEWAY_NO_RESPONSE
        assert (await client.write_register(0, 1, device_id=1)).isError(), "nobody writes into a machine"
        client.close()


async def test_the_historian_has_null_for_bad_and_no_row_for_a_drop_out(tmp_path: Path) -> None:
    config = plant(
        tmp_path,
        '[[machine]]\nname = "t-1"\nkind = "spindle"\nserve = "sql"\n'
        '[[machine.fault]]\nkind = "bad"\nfields = ["current"]\nat = [2]\n'
        '[[machine.fault]]\nkind = "dropout"\nat = [4]\ncycles = 3\n',
    )
    query = "SELECT cycle, current IS NULL FROM t_1 WHERE cycle <= 8 ORDER BY id"
    found: list[tuple[int, int]] = []
    async with running(config):
        while not found or found[-1][0] < 8:
            await asyncio.sleep(0.05)
            with sqlite3.connect(tmp_path / "historian.db") as connection:
                found = connection.execute(query).fetchall()
    assert found == [(1, 0), (2, 1), (3, 0), (7, 0), (8, 0)]
