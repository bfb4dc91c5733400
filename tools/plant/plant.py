"""The day of the plant: every machine makes cycle after cycle, and its server shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from tools.plant.config import MachineConfig, PlantConfig, Protocol, ReplayConfig
from tools.plant.faults import Injector
from tools.plant.historian import HistorianServer
from tools.plant.modbus import ModbusServer, address
from tools.plant.opcua import OpcUaServer
from tools.plant.physics import COUNTERS, FIELDS, Machine, Row
from tools.plant.replay import read
from tools.plant.servers import Channel, Server


@dataclass(frozen=True, slots=True)
class Stream:
    """One machine, simulated or recorded, ready to run."""

    config: MachineConfig | ReplayConfig
    fields: tuple[str, ...]
    units: tuple[str, ...]
    rows: Iterator[Row]
    tick_s: float

    @property
    def lossless(self) -> bool:
        """Recorded rows are all to be read; a live machine does not wait for anybody."""
        return isinstance(self.config, ReplayConfig)


def streams(config: PlantConfig) -> list[Stream]:
    """All machines of a plant. Raises ToolError FF-PLANT-002 where a recording cannot be read."""
    return [*map(_machine(config), config.machines), *map(_replay(config), config.replays)]


async def run(config: PlantConfig, started: Callable[[Sequence[Stream]], None] = lambda _: None) -> None:
    """Serve the plant until cancelled; ``started`` is called once all servers listen. Raises ToolError FF-PLANT-002 … 004."""
    machines = streams(config)
    servers = _servers(config)
    async with AsyncExitStack() as stack:
        channels = [
            servers[stream.config.serve].add(stream.config.name, stream.fields, stream.units, lossless=stream.lossless)
            for stream in machines
        ]
        for server in servers.values():
            stack.push_async_callback(server.stop)
            await server.start()
        started(machines)
        async with asyncio.TaskGroup() as group:
            for server in servers.values():
                group.create_task(server.serve())
            for stream, channel in zip(machines, channels, strict=True):
                group.create_task(_drive(stream, channel, config.plant.seed))


def where(config: PlantConfig, stream: Stream) -> list[tuple[str, str]]:
    """Each variable of a machine with its address on the server, for a person to copy."""
    names = (*stream.fields, *COUNTERS)
    name = stream.config.name
    if stream.config.serve == "opcua":
        return [(field, f"{config.opcua.endpoint} ns=2;s={name}.{field}") for field in names]
    if stream.config.serve == "sql":
        return [(field, f"{config.sql.url} {stream.config.table}.{field}") for field in names]
    unit = f"{config.modbus.host}:{config.modbus.port} unit {config.unit(name)} holding"
    counters = [(counter, f"{unit} {2 * number} u32") for number, counter in enumerate(COUNTERS)]
    return [(field, f"{unit} {address(number)} f32") for number, field in enumerate(stream.fields)] + counters


async def _drive(stream: Stream, channel: Channel, seed: int) -> None:
    """Cycle after cycle at the machine's pace, faults included; then a row of run 0: the machine stands still."""
    injector = Injector(stream.config.faults, stream.fields, seed=seed, name=stream.config.name)
    pause = _pace(stream.tick_s)
    last = Row(0, 0, (0.0,) * len(stream.fields))
    for row in stream.rows:
        await channel.put(injector.apply(row, time.time_ns()))
        last = row
        await pause()
    await channel.put(injector.apply(Row(0, 0, last.values), time.time_ns()))


def _pace(tick_s: float) -> Callable[[], Awaitable[None]]:
    """Waits for the next tick. Ticks that were missed, while waiting for a reader or on a busy machine, are not made up for."""
    loop = asyncio.get_running_loop()
    due = loop.time()

    async def pause() -> None:
        nonlocal due
        due = max(due + tick_s, loop.time())
        await asyncio.sleep(due - loop.time())

    return pause


def _servers(config: PlantConfig) -> dict[Protocol, Server]:
    """The servers that have something to show."""
    used = {stream.serve for stream in config.streams}
    servers: dict[Protocol, Server] = {}
    if "opcua" in used or config.opcua.filler_tags:
        servers["opcua"] = OpcUaServer(config.opcua)
    if "modbus" in used:
        units = {stream.name: config.unit(stream.name) for stream in config.streams if stream.serve == "modbus"}
        servers["modbus"] = ModbusServer(config.modbus, units)
    if "sql" in used:
        servers["sql"] = HistorianServer(config.sql, {stream.name: stream.table for stream in config.streams})
    return servers


def _machine(config: PlantConfig) -> Callable[[MachineConfig], Stream]:
    def make(machine: MachineConfig) -> Stream:
        model = Machine(machine.name, machine.kind, seed=config.plant.seed, regime=machine.regime, runs=machine.runs)
        units = tuple(FIELDS[machine.kind].values())
        return Stream(machine, model.fields, units, model.rows(), config.plant.tick_s)

    return make


def _replay(config: PlantConfig) -> Callable[[ReplayConfig], Stream]:
    def make(replay: ReplayConfig) -> Stream:
        recording = read(replay.file)
        tick = config.plant.tick_s if replay.tick_s is None else replay.tick_s
        return Stream(replay, recording.fields, ("",) * len(recording.fields), recording.rows(), tick)

    return make
