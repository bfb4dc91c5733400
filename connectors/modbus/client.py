"""The Modbus TCP connector: one connection, polled without drift; one poll is one snapshot."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from connectors.contract import Batch, Quality, Sample, Value
from connectors.errors import ConnectorError
from connectors.modbus.config import ModbusConfig
from connectors.modbus.decode import Decoder
from connectors.modbus.plan import Block, plan
from connectors.modbus.rhythm import Rhythm

# pymodbus logs every failed request; what matters is raised as an error or told in one line below.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
_log = logging.getLogger(__name__)

_REFUSED = (2, 3, 4)
"""Illegal data address, illegal value, device failure: what devices answer when a part of a merged read does not exist."""


class ModbusConnector:
    """Polls one device. There is no position to go on from, so the cursor is always None."""

    def __init__(self, config: ModbusConfig) -> None:
        self._config = config
        self._link: _Link | None = None
        self._rhythm = Rhythm(config.every_s, 0.0)

    async def start(self, cursor: str | None) -> None:
        """Connect. Raises ConnectorError."""
        self._link = _Link(self._config)
        await self._link.open()
        self._rhythm = Rhythm(self._config.every_s, asyncio.get_running_loop().time())

    async def read(self) -> Batch:
        """Wait until the next poll is due, then read every tag. Raises ConnectorError when the connection is lost."""
        if self._link is None:
            raise RuntimeError("read before start")
        await asyncio.sleep(self._rhythm.wait(asyncio.get_running_loop().time()))
        return Batch(await self._link.poll())

    async def stop(self) -> None:
        """Close the connection, whatever state it is in."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    async def probe(self) -> Sequence[Sample]:
        """Read every tag once on a connection of its own. Raises ConnectorError."""
        link = _Link(self._config)
        try:
            await link.open()
            return await link.poll()
        finally:
            link.close()


class _Link:
    """One connection, and what was learned on it: which merged reads are refused, which units are silent."""

    def __init__(self, config: ModbusConfig) -> None:
        self._config = config
        self._client = AsyncModbusTcpClient(
            config.host, port=config.port, timeout=config.timeout_s, retries=0, reconnect_delay=0
        )
        self._reads = {
            "holding": self._client.read_holding_registers,
            "input": self._client.read_input_registers,
            "coil": self._client.read_coils,
            "discrete": self._client.read_discrete_inputs,
        }
        self._blocks = [(block, Decoder(block)) for block in plan(config)]
        self._silent_until: dict[int, float] = {}
        self._refused: set[Block] = set()

    async def open(self) -> None:
        where = f"{self._config.host}:{self._config.port}"
        try:
            connected = await self._client.connect()
        except OSError as error:
            raise self._unreachable(where, str(error)) from error
        if not connected:
            raise self._unreachable(where, "no connection")

    def close(self) -> None:
        self._client.close()

    async def poll(self) -> list[Sample]:
        """One sample for each tag, in the order of the configuration, all of one time."""
        values: list[Value] = [None] * len(self._config.tag)
        heard = False
        todo = self._blocks[::-1]
        done: list[tuple[Block, Decoder]] = []
        while todo:
            block, decoder = todo.pop()
            answer = await self._request(block)
            heard = heard or answer is not None
            if (
                answer is not None
                and answer.isError()
                and answer.exception_code in _REFUSED
                and (halves := block.halves())
            ):
                todo.extend((half, Decoder(half)) for half in reversed(halves))
                continue
            done.append((block, decoder))
            if answer is not None and not self._is_refused(block, answer):
                found = (
                    decoder.bits(answer.bits)
                    if block.slots[0].tag.is_bit
                    else decoder.registers(answer.registers[: block.count])
                )
                for slot, value in zip(block.slots, found, strict=True):
                    values[slot.index] = value
        if not heard:
            raise ConnectorError(
                "FF-MODBUS-003",
                f"no unit at {self._config.host}:{self._config.port} answered within {self._config.timeout_s:g} s",
                hint="check unit_id; a gateway may need seconds for a slow serial line: raise timeout_s",
            )
        self._blocks = done
        return self._samples(values)

    async def _request(self, block: Block) -> ModbusPDU | None:
        """The answer, an exception response included; None from a unit that is silent. Raises ConnectorError."""
        loop = asyncio.get_running_loop()
        if self._silent_until.get(block.unit_id, 0.0) > loop.time():
            return None
        try:
            answer = await self._reads[block.table](block.address, count=block.count, device_id=block.unit_id)
        except ModbusException as error:
            if not self._client.connected:
                raise self._lost(error) from error
            self._silent_until[block.unit_id] = loop.time() + self._config.silent_unit_s
            _log.warning("%s: unit %d does not answer", self._config.name, block.unit_id)
            return None
        if not answer.isError() and max(len(answer.bits), len(answer.registers)) < block.count:
            raise self._lost("the device answered with fewer values than it was asked for")
        self._silent_until.pop(block.unit_id, None)
        return answer

    def _is_refused(self, block: Block, answer: ModbusPDU) -> bool:
        """Whether the device refused the read; says so once for each block until it is readable again."""
        if not answer.isError():
            self._refused.discard(block)
            return False
        if block not in self._refused:
            self._refused.add(block)
            tags = ", ".join(slot.tag.name for slot in block.slots)
            _log.warning(
                "%s: unit %d refuses %s %d (exception %d): %s",
                self._config.name,
                block.unit_id,
                block.table,
                block.address,
                answer.exception_code,
                tags,
            )
        return True

    def _samples(self, values: Sequence[Value]) -> list[Sample]:
        now = time.time_ns()
        return [
            Sample(tag.name, value, Quality.BAD if value is None else Quality.GOOD, now, now)
            for tag, value in zip(self._config.tag, values, strict=True)
        ]

    def _lost(self, error: object) -> ConnectorError:
        return ConnectorError(
            "FF-MODBUS-002",
            f"the connection to {self._config.host}:{self._config.port} was lost: {error}",
            hint="the gateway tries again by itself; many devices bear only a few connections at a time",
        )

    @staticmethod
    def _unreachable(where: str, reason: str) -> ConnectorError:
        return ConnectorError(
            "FF-MODBUS-001",
            f"no Modbus device answers at {where}: {reason}",
            hint="check host, port and firewall, and that the device has a free connection",
        )
