"""The plant's Modbus TCP server: one unit per machine, holding registers; run and cycle as u32, then each field as f32, order ABCD."""

from __future__ import annotations

import asyncio
import math
import struct
from collections import deque
from collections.abc import Sequence

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from tools.plant.config import Modbus
from tools.plant.faults import Reading
from tools.plant.opcua import cannot_listen
from tools.plant.physics import COUNTERS

LOOKAHEAD = 64
"""Rows a lossless unit holds ready for its reader."""


def address(field: int) -> int:
    """First register of the field of this number; the counters stand at 0 and 2."""
    return 2 * (len(COUNTERS) + field)


class Channel:
    """One unit. A lossless one shows the next row after each read of its first register, so that a poller sees each row."""

    def __init__(self, fields: int, lossless: bool) -> None:
        self.registers = [0] * address(fields)
        self._lossless = lossless
        self._silent = False
        self._waiting: deque[list[int]] = deque()
        self._room = asyncio.Condition()
        self._read = asyncio.Event()

    async def ready(self) -> None:
        """Return once the unit has been read."""
        await self._read.wait()

    async def put(self, reading: Reading | None) -> None:
        """The unit's memory after this cycle. Bad values are NaN; in a drop-out the unit does not answer (exception 0x0B)."""
        self._silent = reading is None and not self._lossless
        if reading is None:
            return
        registers = _registers(reading)
        if not self._lossless:
            self.registers = registers
            return
        async with self._room:
            await self._room.wait_for(lambda: len(self._waiting) < LOOKAHEAD)
            self._waiting.append(registers)

    async def on_access(
        self,
        _function: int,
        start: int,
        first: int,
        _count: int,
        memory: list[int],
        writes: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by the server before each answer."""
        if writes is not None:
            return ExcCodes.ILLEGAL_FUNCTION
        self._read.set()
        if self._silent:
            return ExcCodes.GATEWAY_NO_RESPONSE
        if first == start and self._waiting:
            async with self._room:
                self.registers = self._waiting.popleft()
                self._room.notify_all()
        memory[:] = self.registers
        return None


class ModbusServer:
    """One TCP port."""

    def __init__(self, config: Modbus, units: dict[str, int]) -> None:
        self._config = config
        self._units = units
        self._channels: dict[str, Channel] = {}
        self._server: ModbusTcpServer | None = None

    def add(self, name: str, fields: Sequence[str], units: Sequence[str], *, lossless: bool) -> Channel:
        """A machine's unit on this server."""
        channel = self._channels[name] = Channel(len(fields), lossless)
        return channel

    async def start(self) -> None:
        """Listen. Raises ToolError FF-PLANT-002."""
        devices = [
            SimDevice(
                id=self._units[name],
                simdata=[SimData(0, count=len(channel.registers), values=0, datatype=DataType.REGISTERS)],
                action=channel.on_access,
            )
            for name, channel in self._channels.items()
        ]
        self._server = ModbusTcpServer(devices, address=(self._config.host, self._config.port))
        try:
            await self._server.serve_forever(background=True)
        except RuntimeError as error:
            where = f"{self._config.host}:{self._config.port}"
            raise cannot_listen(where, OSError(str(error))) from error

    async def stop(self) -> None:
        """Close all connections."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.shutdown()  # type: ignore[no-untyped-call]

    async def serve(self) -> None:
        """Nothing beside answering."""


def _registers(reading: Reading) -> list[int]:
    values = [math.nan if value is None else value for value in reading.values]
    data = struct.pack(f">II{len(values)}f", reading.run, reading.cycle, *values)
    return list(struct.unpack(f">{len(data) // 2}H", data))
