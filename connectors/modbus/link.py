"""One connection to a Modbus device, and what was learned on it: which merged reads it refuses, which units are silent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from connectors.contract import Quality, Value
from connectors.errors import ConnectorError
from connectors.modbus.config import ModbusConfig
from connectors.modbus.decode import Bits, Registers, decoder
from connectors.modbus.plan import Block, plan
from connectors.once import Once
from connectors.samples import Kind, SampleBlock, Values

# pymodbus logs every failed request; what matters is raised as an error or told once.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

_TORN = (2, 3, 4)
"""Illegal data address, illegal value, device failure: what devices answer when a part of a merged read does not exist."""


class _Read(NamedTuple):
    block: Block
    decoder: Registers | Bits


class Poll(NamedTuple):
    """The values of all tags at one time, in the order of the configuration; None: missing."""

    time: int
    values: list[Value]


class Link:
    """Opened once, polled, closed. Every method raises ConnectorError."""

    def __init__(self, config: ModbusConfig, once: Once) -> None:
        self._config = config
        self._where = f"{config.host}:{config.port}"
        self._once = once
        self._client = AsyncModbusTcpClient(
            config.host, port=config.port, timeout=config.timeout_s, retries=0, reconnect_delay=0
        )
        self._functions = {
            "holding": self._client.read_holding_registers,
            "input": self._client.read_input_registers,
            "coil": self._client.read_coils,
            "discrete": self._client.read_discrete_inputs,
        }
        self._reads = [_Read(block, decoder(block)) for block in plan(config)]
        self._silent_until: dict[int, float] = {}

    async def open(self) -> None:
        """Connect."""
        try:
            connected, reason = await self._client.connect(), "no connection"
        except OSError as error:
            connected, reason = False, str(error)
        if not connected:
            raise ConnectorError(
                "FF-MODBUS-001",
                f"no Modbus device answers at {self._where}: {reason}",
                hint="check host, port and firewall, and that the device has a free connection",
            )

    def close(self) -> None:
        """Disconnect, whatever state the connection is in."""
        self._client.close()

    def block(self, polls: Sequence[Poll]) -> SampleBlock:
        """One sample for each tag and poll."""
        tags, count = self._config.tag_names(), len(polls)
        kind, number, integer, texts = Values.of([value for poll in polls for value in poll.values])
        time = np.repeat(np.array([poll.time for poll in polls], np.int64), len(tags))
        return SampleBlock(
            tags=tags,
            tag=np.tile(np.arange(len(tags), dtype=np.uint32), count),
            kind=kind,
            number=number,
            integer=integer,
            texts=texts,
            quality=np.where(kind == Kind.NONE, Quality.BAD, Quality.GOOD).astype(np.uint8),
            source_time=time,
            gateway_time=time,
        )

    async def poll(self) -> Poll:
        """Read every tag."""
        values: list[Value] = [None] * len(self._config.tag)
        heard = False
        todo, done = self._reads[::-1], []
        while todo:
            read = todo.pop()
            answer = await self._request(read.block)
            if answer is not None:
                heard = True
                if answer.isError() and answer.exception_code in _TORN and (halves := read.block.halves()):
                    todo.extend(_Read(half, decoder(half)) for half in reversed(halves))
                    continue
                self._take(read, answer, values)
            done.append(read)
        if not heard:
            raise ConnectorError(
                "FF-MODBUS-003",
                f"no unit at {self._where} answered within {self._config.timeout_s:g} s",
                hint="check unit_id; a gateway may need seconds for a slow serial line: raise timeout_s",
            )
        self._reads = done
        return Poll(time.time_ns(), values)

    async def _request(self, block: Block) -> ModbusPDU | None:
        """The answer, an exception response included; None from a unit that is silent."""
        loop = asyncio.get_running_loop()
        if self._silent_until.get(block.unit_id, 0.0) > loop.time():
            return None
        try:
            answer = await self._functions[block.table](block.address, count=block.count, device_id=block.unit_id)
        except ModbusException as error:
            if not self._client.connected:
                raise self._lost(error) from error
            self._silent_until[block.unit_id] = loop.time() + self._config.silent_unit_s
            self._once.failed(block.unit_id, f"unit {block.unit_id} does not answer")
            return None
        if not answer.isError() and max(len(answer.bits), len(answer.registers)) < block.count:
            raise self._lost("the device answered with fewer values than it was asked for")
        self._once.recovered(block.unit_id)
        return answer

    def _take(self, read: _Read, answer: ModbusPDU, values: list[Value]) -> None:
        """Put what ``answer`` says of the block's tags into ``values``; a refused read leaves them None."""
        block = read.block
        place = (block.unit_id, block.table, block.address, block.count)
        if answer.isError():
            tags = ", ".join(slot.tag.name for slot in block.slots)
            refused = f"unit {block.unit_id} refuses {block.table} {block.address} (exception {answer.exception_code})"
            self._once.failed(place, f"{refused}: {tags}")
            return
        self._once.recovered(place)
        memory = answer.bits if block.is_bits else answer.registers[: block.count]
        for slot, value in zip(block.slots, read.decoder.values(memory), strict=True):
            values[slot.index] = value

    def _lost(self, reason: object) -> ConnectorError:
        return ConnectorError(
            "FF-MODBUS-002",
            f"the connection to {self._where} was lost: {reason}",
            hint="the gateway tries again by itself; many devices bear only a few connections at a time",
        )
