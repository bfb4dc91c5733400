"""The day of the plant: every machine makes cycle after cycle, and its server shows them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import count

from tools.plant.config import MachineConfig, Plant, PlantConfig, Protocol, ReplayConfig
from tools.plant.faults import Injector
from tools.plant.historian import HistorianServer
from tools.plant.modbus import ModbusServer, address
from tools.plant.opcua import OpcUaServer
from tools.plant.physics import COUNTERS, FIELDS, Machine, Row
from tools.plant.replay import read
from tools.plant.servers import Channel, Server

STANDSTILL_S = 0.5
"""Seconds from reading to reading of a machine that stands still."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One machine, simulated or recorded, ready to run."""

    config: MachineConfig | ReplayConfig
    fields: tuple[str, ...]
    units: tuple[str, ...]
    rows: Iterator[tuple[Row, float]]
    """Each row, and the seconds until the next."""

    @property
    def lossless(self) -> bool:
        """Recorded rows are all to be read; a live machine does not wait for anybody."""
        return isinstance(self.config, ReplayConfig)


def streams(config: PlantConfig) -> list[Stream]:
    """All machines of a plant. Raises ToolError FF-PLANT-001 where a recording cannot be read."""
    machines = [_machine(config, machine) for machine in config.machines]
    return machines + [_replay(config, replay) for replay in config.replays]


async def run(config: PlantConfig, started: Callable[[Sequence[Stream]], None] = lambda _: None) -> None:
    """Serve the plant until cancelled; ``started`` is called once all servers listen. Raises ToolError FF-PLANT-001 … 003."""
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
                group.create_task(_drive(stream, channel, config.plant))


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


async def _drive(stream: Stream, channel: Channel, plant: Plant) -> None:
    """Cycle after cycle at the machine's pace, faults included.

    Ticks that were missed, while waiting for a reader or on a busy computer, are not made up for.
    """
    if plant.wait_for_readers or stream.lossless:
        await channel.ready()
    injector = Injector(stream.config.faults, stream.fields, seed=plant.seed, name=stream.config.name)
    loop = asyncio.get_running_loop()
    due = loop.time()
    for row, pause_s in stream.rows:
        await channel.put(injector.apply(row, time.time_ns()))
        due = max(due + pause_s, loop.time())
        await asyncio.sleep(due - loop.time())


def _standstill(last: Row) -> Iterator[tuple[Row, float]]:
    """After its last run a machine shows run 0, with the last values: its readers see that the run has ended, and that it is alive."""
    for cycle in count(1):
        yield Row(0, cycle, last.values), STANDSTILL_S


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


def _machine(config: PlantConfig, machine: MachineConfig) -> Stream:
    model = Machine(machine.name, machine.kind, seed=config.plant.seed, regime=machine.regime)

    def rows() -> Iterator[tuple[Row, float]]:
        tick_s, last = config.plant.tick_s, None
        for row in model.rows():
            if machine.runs is not None and row.run > machine.runs:
                if machine.after_s is None:
                    break
                tick_s = machine.after_s
            yield row, tick_s
            last = row
        yield from _standstill(last or row)

    return Stream(machine, model.fields, tuple(FIELDS[machine.kind].values()), rows())


def _replay(config: PlantConfig, replay: ReplayConfig) -> Stream:
    recording = read(replay.file)
    tick_s = config.plant.tick_s if replay.tick_s is None else replay.tick_s

    def rows() -> Iterator[tuple[Row, float]]:
        row = Row(0, 0, (0.0,) * len(recording.fields))
        for row in recording.rows():
            yield row, tick_s
        yield from _standstill(row)

    return Stream(replay, recording.fields, ("",) * len(recording.fields), rows())
