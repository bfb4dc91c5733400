"""The plant's OPC UA server: Objects/Plant/<machine>/<field>, real status codes and source times, and filler variables for load."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime

from asyncua import ua
from asyncua.common.callback import CallbackType
from asyncua.server.server import Server as UaServer
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from tools.errors import ToolError
from tools.plant.config import OpcUa
from tools.plant.faults import Reading
from tools.plant.physics import COUNTERS

logging.getLogger("asyncua").setLevel(logging.ERROR)  # it warns that this server, as a machine's often, has no security

NAMESPACE = "urn:fedfab:plant"
SETTLED_S = 0.5
"""A client subscribes in several requests; rows that must not be lost begin once none has come for so long."""


class Channel:
    """One machine: an object with a variable for each field and counter."""

    def __init__(self, server: OpcUaServer, name: str, fields: Sequence[str], units: Sequence[str]) -> None:
        self.name = name
        self.variables = {**dict(zip(fields, units, strict=True)), **dict.fromkeys(COUNTERS, "")}
        self.nodes = [_node(f"{name}.{variable}") for variable in self.variables]
        self._server = server

    async def ready(self) -> None:
        """Return once a client has subscribed to this machine."""
        await self._server.subscribed(self.nodes)

    async def put(self, reading: Reading | None) -> None:
        """Write all variables with the reading's source time, the counters last. A drop-out writes nothing."""
        if reading is None:
            return
        time = datetime.fromtimestamp(reading.time_ns / 1e9, UTC)
        for node, value in zip(self.nodes, (*reading.values, reading.run, reading.cycle), strict=True):
            await self._server.write(node, value, time)


class OpcUaServer:
    """One endpoint, anonymous and without encryption: it stands for a machine's own server inside the shop."""

    def __init__(self, config: OpcUa) -> None:
        self._config = config
        self._channels: list[Channel] = []
        self._server: UaServer | None = None
        self._watched: set[ua.NodeId] = set()
        self._subscription = asyncio.Event()
        self._filler: list[ua.NodeId] = []

    def add(self, name: str, fields: Sequence[str], units: Sequence[str], *, lossless: bool) -> Channel:
        """A machine on this server. Nothing is lost as long as the client's queues hold what comes between two deliveries."""
        channel = Channel(self, name, fields, units)
        self._channels.append(channel)
        return channel

    async def start(self) -> None:
        """Build the address space and listen. Raises ToolError FF-PLANT-002."""
        server = self._server = UaServer()
        await server.init()
        server.set_endpoint(self._config.endpoint)
        server.set_server_name("fedfab plant")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await server.register_namespace(NAMESPACE)
        server.subscribe_server_callback(CallbackType.ItemSubscriptionCreated, self._on_subscribed)
        await self._build(server)
        try:
            await server.start()
        except OSError as error:
            raise cannot_listen(self._config.endpoint, error) from error

    async def stop(self) -> None:
        """Close all sessions."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def serve(self) -> None:
        """Change every filler variable once per ``filler_s``."""
        loop = asyncio.get_running_loop()
        begin, step = loop.time(), 0
        walk = [random.uniform(0.0, math.tau) for _ in self._filler]
        while self._filler:
            step += 1
            time = datetime.now(UTC)
            for node, phase in zip(self._filler, walk, strict=True):
                await self.write(node, 50 + 50 * math.sin(phase + step / 10), time)
            await asyncio.sleep(max(0.0, begin + step * self._config.filler_s - loop.time()))

    async def write(self, node: ua.NodeId, value: float | int | None, time: datetime) -> None:
        """One value with its source time; None is written as BadSensorFailure without a value."""
        if self._server is None:
            return
        await self._server.write_attribute_value(node, _data_value(value, time))

    async def subscribed(self, nodes: Sequence[ua.NodeId]) -> None:
        """Return once a client follows at least one of ``nodes`` and has finished subscribing."""
        while not self._watched.intersection(nodes):
            self._subscription.clear()
            await self._subscription.wait()
        quiet = False
        while not quiet:
            self._subscription.clear()
            try:
                await asyncio.wait_for(self._subscription.wait(), SETTLED_S)
            except TimeoutError:
                quiet = True

    async def _build(self, server: UaServer) -> None:
        plant = await server.nodes.objects.add_object(_node("Plant"), ua.QualifiedName("Plant", 2))
        for channel in self._channels:
            machine = await plant.add_object(_node(channel.name), ua.QualifiedName(channel.name, 2))
            for node, (name, unit) in zip(channel.nodes, channel.variables.items(), strict=True):
                zero: float | int = 0 if name in COUNTERS else 0.0
                variable = await machine.add_variable(node, ua.QualifiedName(name, 2), _variant(zero))
                if unit:
                    text = ua.Variant(ua.LocalizedText(f"{name} in {unit}"))
                    await variable.write_attribute(AttributeIds.Description, ua.DataValue(text))
        filler = await server.nodes.objects.add_object(_node("Filler"), ua.QualifiedName("Filler", 2))
        for number in range(self._config.filler_tags):
            node = _node(f"Filler.{number}")
            await filler.add_variable(node, ua.QualifiedName(str(number), 2), _variant(0.0))
            self._filler.append(node)

    def _on_subscribed(self, event: object, _dispatcher: object = None) -> None:
        for item in event.request_params.ItemsToCreate:  # type: ignore[attr-defined]  # asyncua's event has no type of its own
            self._watched.add(item.ItemToMonitor.NodeId)
        self._subscription.set()


def cannot_listen(address: str, error: OSError) -> ToolError:
    """What to say where an address cannot be listened on."""
    return ToolError(
        "FF-PLANT-002",
        f"the plant cannot listen on {address}: {error.strerror or error}",
        hint="another program has the port, or it needs more rights; choose a free port above 1023 in the plant file",
    )


def _node(name: str) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns=2;s={name}")


def _data_value(value: float | int | None, time: datetime) -> ua.DataValue:
    variant = ua.Variant() if value is None else _variant(value)
    status = StatusCodes.BadSensorFailure if value is None else StatusCodes.Good
    return ua.DataValue(
        variant,
        ua.StatusCode(ua.UInt32(status)),
        SourceTimestamp=ua.DateTime.fromtimestamp(time.timestamp(), UTC),
        ServerTimestamp=ua.DateTime.now(UTC),
    )


def _variant(value: float | int) -> ua.Variant:
    return ua.Variant(value, ua.VariantType.UInt32 if isinstance(value, int) else ua.VariantType.Double)
