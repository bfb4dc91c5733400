"""The OPC UA connector: one session, one subscription, whose deliveries are what it reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from itertools import count

from asyncua import ua
from asyncua.client.client import Client

from connectors.contract import Batch, Quality, Sample
from connectors.errors import ConnectorError
from connectors.once import Once
from connectors.opcua.config import OpcUaConfig, OpcUaTag
from connectors.opcua.notifications import Delivery, block
from connectors.opcua.session import FAILURES, chunks, connect, find_nodes, item_of, new_client, session
from connectors.opcua.subscription import Subscription
from connectors.opcua.values import sample

_log = logging.getLogger(__name__)


class OpcUaConnector:
    """Reads one server by subscription.

    A subscription knows no position to go on from, so the cursor is always None: after a start the server sends the present value
    of every variable, then the changes.
    """

    def __init__(self, config: OpcUaConfig) -> None:
        self._config = config
        self._client: Client | None = None
        self._subscription: Subscription | None = None
        self._names: dict[int, str] = {}
        """Tag of each handle by which the server knows a variable."""
        self._failed: dict[str, str] = {}
        """Tags that the server does not let us follow, and why; not yet told to the reader."""
        self._unreadable: set[str] = set()
        self._once = Once(_log, config.name)

    async def start(self, cursor: str | None) -> None:
        """Connect and subscribe. Raises ConnectorError."""
        self._client = client = new_client(self._config)
        self._subscription = subscription = Subscription(client, self._config)

        async def lost(error: Exception) -> None:
            subscription.lose(ConnectionError(f"{error.__class__.__name__} {error}".strip()))

        client.connection_lost_callback = lost
        await connect(self._config, client)
        try:
            await self._subscribe(client, subscription)
        except FAILURES as error:
            raise self._lost(error) from error

    async def read(self) -> Batch:
        """All changes delivered since the last call; waits for one. Raises ConnectorError when the server falls silent."""
        subscription = self._subscription
        if subscription is None:
            raise RuntimeError("read before start")
        if self._failed:
            now = time.time_ns()
            failed, self._failed = self._failed, {}
            return Batch([Sample(tag, None, Quality.BAD, now, now) for tag in failed])
        while True:
            try:
                deliveries = await subscription.next()
                samples, overflowed = block(self._names, deliveries, time.time_ns())
            except TimeoutError:
                raise ConnectorError(
                    "FF-OPCUA-004",
                    f"{self._config.endpoint} sent nothing for {subscription.silence_s:g} s, not even that it is alive",
                    hint="the server dropped the subscription or hangs; if this comes again, restart the server",
                ) from None
            except FAILURES as error:
                raise self._lost(error) from error
            for tag in overflowed:
                self._once.failed(tag, f"the server dropped changes of {tag}; raise queue_size")
            for delivery in deliveries:
                if delivery.ended:
                    subscription.lose(ConnectionError(ua.StatusCode(ua.UInt32(delivery.ended)).name))
            if samples:

                async def acknowledge(stored: list[Delivery] = deliveries) -> None:
                    subscription.acknowledge(stored)

                return Batch(samples, acknowledge=acknowledge)
            subscription.acknowledge(deliveries)

    async def stop(self) -> None:
        """Close session and socket, whatever state they are in."""
        client, self._client = self._client, None
        subscription, self._subscription = self._subscription, None
        try:
            if subscription is not None:
                await subscription.close()
        finally:
            if client is not None:
                await client.disconnect()

    async def probe(self) -> Sequence[Sample]:
        """Read every variable once on a session of its own. Raises ConnectorError."""
        async with session(self._config) as client:
            try:
                return await self._read_once(client)
            except FAILURES as error:
                raise self._lost(error) from error

    async def _subscribe(self, client: Client, subscription: Subscription) -> None:
        nodes = await find_nodes(self._config, client)
        await subscription.open()
        handles, self._names = count(1), {}
        failed = dict(nodes.failed)
        for part in chunks(nodes.found, self._config.chunk):
            items = [self._monitor(next(handles), *found) for found in part]
            taken = await subscription.monitor(items)
            for (tag, _), item, status in zip(part, items, taken, strict=True):
                self._names[item.RequestedParameters.ClientHandle] = tag.name
                if not status.is_good():
                    failed[tag.name] = f"{tag.node or tag.path}: {status.name}"
        self._report_unreadable(failed)
        self._failed = failed

    def _monitor(self, handle: int, tag: OpcUaTag, node: ua.NodeId) -> ua.MonitoredItemCreateRequest:
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=item_of(tag, node),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=handle,
                SamplingInterval=1000 * self._config.sampling_s,
                QueueSize=self._config.server_queue,
                DiscardOldest=True,
            ),
        )

    async def _read_once(self, client: Client) -> list[Sample]:
        nodes = await find_nodes(self._config, client)
        values: dict[str, ua.DataValue] = {}
        for part in chunks(nodes.found, self._config.chunk):
            items = [item_of(tag, node) for tag, node in part]
            parameters = ua.ReadParameters(TimestampsToReturn=ua.TimestampsToReturn.Both, NodesToRead=items)
            results = await client.uaclient.read(parameters)
            values.update(zip((tag.name for tag, _ in part), results, strict=True))
        now = time.time_ns()
        return [sample(tag.name, values.get(tag.name), now) for tag in self._config.tag]

    def _report_unreadable(self, failed: dict[str, str]) -> None:
        """One line for all that cannot be followed, however many; at the next start only for those that are new."""
        new = failed.keys() - self._unreadable
        if new:
            named = "; ".join(f"{tag} ({failed[tag]})" for tag in sorted(new)[:20])
            _log.warning(
                "%s: %d of %d tags cannot be read: %s", self._config.name, len(failed), len(self._config.tag), named
            )
        self._unreadable = set(failed)

    def _lost(self, error: Exception) -> ConnectorError:
        return ConnectorError(
            "FF-OPCUA-003",
            f"the connection to {self._config.endpoint} was lost: {error or error.__class__.__name__}",
            hint="the gateway tries again by itself; if it stays away, check the server and the network",
        )
