"""The OPC UA connector: one session, one subscription, changes collected in a bounded buffer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from asyncua import ua
from asyncua.client.client import Client

from connectors.contract import Batch, Quality, Sample
from connectors.errors import ConnectorError
from connectors.once import Once
from connectors.opcua.config import OpcUaConfig, OpcUaTag
from connectors.opcua.session import FAILURES, chunks, connect, find_nodes, item_of, new_client, session
from connectors.opcua.values import overflowed, sample

_log = logging.getLogger(__name__)

_LIFE_S = 600.0
"""How long the server is asked to keep the subscription while nobody asks for deliveries."""


class OpcUaConnector:
    """Reads one server by subscription.

    A subscription knows no position to go on from, so the cursor is always None: after a start the server sends the present value
    of every variable, then the changes.
    """

    def __init__(self, config: OpcUaConfig) -> None:
        self._config = config
        self._keep_alive_s = max(config.timeout_s, config.publishing_s)
        self._client: Client | None = None
        self._buffer: list[Sample] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._lost: BaseException | None = None
        self._unreadable: set[str] = set()
        self._once = Once(_log, config.name)

    async def start(self, cursor: str | None) -> None:
        """Connect and subscribe. Raises ConnectorError."""
        self._buffer = []
        self._lost = None
        self._arrived.clear()
        self._room.set()
        self._client = client = new_client(self._config)
        client.connection_lost_callback = self._on_lost
        await connect(self._config, client)
        try:
            await self._subscribe(client)
        except FAILURES as error:
            raise self._connection_lost(error) from error

    async def read(self) -> Batch:
        """All changes collected since the last call; waits for one. Raises ConnectorError when the server falls silent."""
        while not self._buffer:
            if self._lost is not None:
                raise self._connection_lost(self._lost)
            self._arrived.clear()
            try:
                async with asyncio.timeout(3 * self._keep_alive_s):
                    await self._arrived.wait()
            except TimeoutError:
                raise ConnectorError(
                    "FF-OPCUA-004",
                    f"{self._config.endpoint} sent nothing for {3 * self._keep_alive_s:g} s, not even that it is alive",
                    hint="the server dropped the subscription or hangs; if this comes again, restart the server",
                ) from None
        samples, self._buffer = self._buffer, []
        self._room.set()
        return Batch(samples)

    async def stop(self) -> None:
        """Close session and socket, whatever state they are in."""
        client, self._client = self._client, None
        if client is not None:
            self._room.set()
            await client.disconnect()

    async def probe(self) -> Sequence[Sample]:
        """Read every variable once on a session of its own. Raises ConnectorError."""
        async with session(self._config) as client:
            try:
                return await self._read_once(client)
            except FAILURES as error:
                raise self._connection_lost(error) from error

    async def _subscribe(self, client: Client) -> None:
        nodes = await find_nodes(self._config, client)
        publishing_s = self._config.publishing_s
        tags: dict[int, str] = {}
        subscription = await client.uaclient.create_subscription(
            ua.CreateSubscriptionParameters(
                RequestedPublishingInterval=1000 * publishing_s,
                RequestedLifetimeCount=max(30, int(_LIFE_S / publishing_s)),
                RequestedMaxKeepAliveCount=max(1, int(self._keep_alive_s / publishing_s)),
                MaxNotificationsPerPublish=10_000,
                PublishingEnabled=True,
            ),
            lambda result: self._on_delivery(tags, result),
        )
        failed = dict(nodes.failed)
        for part in chunks(nodes.found, self._config.chunk):
            requests = []
            for tag, node in part:
                handle = len(tags) + 1
                tags[handle] = tag.name
                requests.append(self._monitor(handle, tag, node))
            parameters = ua.CreateMonitoredItemsParameters(
                SubscriptionId=subscription.SubscriptionId,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=requests,
            )
            for (tag, _), result in zip(part, await client.uaclient.create_monitored_items(parameters), strict=True):
                if not result.StatusCode.is_good():
                    failed[tag.name] = f"{tag.node or tag.path}: {result.StatusCode.name}"
        self._report_unreadable(failed)

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

    async def _on_delivery(self, tags: dict[int, str], result: ua.PublishResult) -> None:
        """Called by asyncua for each delivery and each sign of life; it asks for the next one when this returns.

        Waiting here for room is the back-pressure: the server then collects in its own queues.
        """
        await self._room.wait()
        now = time.time_ns()
        for notification in result.NotificationMessage.NotificationData or ():
            if isinstance(notification, ua.DataChangeNotification):
                for item in notification.MonitoredItems:
                    name = tags[item.ClientHandle]
                    self._buffer.append(sample(name, item.Value, now))
                    if overflowed(item.Value):
                        self._once.failed(name, f"the server dropped changes of {name}; raise queue_size")
            elif isinstance(notification, ua.StatusChangeNotification) and not notification.Status.is_good():
                self._lost = ConnectionError(notification.Status.name)
        if len(self._buffer) >= self._config.buffer:
            self._room.clear()
        self._arrived.set()

    async def _on_lost(self, error: Exception) -> None:
        self._lost = error
        self._arrived.set()

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
        """A tag that cannot be followed is one BAD sample, and one line in the log until it was readable again."""
        now = time.time_ns()
        self._buffer.extend(Sample(tag, None, Quality.BAD, now, now) for tag in failed)
        new = failed.keys() - self._unreadable
        if new:
            _log.warning(
                "%s: %d of %d tags cannot be read: %s",
                self._config.name,
                len(failed),
                len(self._config.tag),
                "; ".join(f"{tag} ({failed[tag]})" for tag in sorted(new)[:20]),
            )
        self._unreadable = set(failed)
        self._arrived.set()

    def _connection_lost(self, error: BaseException) -> ConnectorError:
        return ConnectorError(
            "FF-OPCUA-003",
            f"the connection to {self._config.endpoint} was lost: {error or error.__class__.__name__}",
            hint="the gateway tries again by itself; if it stays away, check the server and the network",
        )
