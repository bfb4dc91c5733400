"""The OPC UA connector: one session, one subscription, changes collected in a bounded inbox."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from asyncua import ua
from asyncua.client.client import Client

from connectors.contract import Batch, Quality, Sample
from connectors.errors import ConnectorError
from connectors.once import Once
from connectors.opcua.config import OpcUaConfig, OpcUaTag
from connectors.opcua.inbox import Inbox
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
        self._client: Client | None = None
        self._inbox: Inbox | None = None
        self._unreadable: set[str] = set()
        self._once = Once(_log, config.name)

    async def start(self, cursor: str | None) -> None:
        """Connect and subscribe. Raises ConnectorError."""
        self._client = client = new_client(self._config)
        self._inbox = inbox = Inbox(self._config.buffer)

        async def lost(error: Exception) -> None:
            inbox.lose(ConnectionError(f"{error.__class__.__name__} {error}".strip()))

        client.connection_lost_callback = lost
        await connect(self._config, client)
        try:
            await self._subscribe(client, inbox)
        except FAILURES as error:
            raise self._lost(error) from error

    async def read(self) -> Batch:
        """All changes collected since the last call; waits for one. Raises ConnectorError when the server falls silent."""
        if self._inbox is None:
            raise RuntimeError("read before start")
        try:
            return Batch(await self._inbox.take())
        except TimeoutError:
            raise ConnectorError(
                "FF-OPCUA-004",
                f"{self._config.endpoint} sent nothing for {self._inbox.silence_s:g} s, not even that it is alive",
                hint="the server dropped the subscription or hangs; if this comes again, restart the server",
            ) from None
        except FAILURES as error:
            raise self._lost(error) from error

    async def stop(self) -> None:
        """Close session and socket, whatever state they are in."""
        client, self._client, self._inbox = self._client, None, None
        if client is not None:
            await client.disconnect()

    async def probe(self) -> Sequence[Sample]:
        """Read every variable once on a session of its own. Raises ConnectorError."""
        async with session(self._config) as client:
            try:
                return await self._read_once(client)
            except FAILURES as error:
                raise self._lost(error) from error

    async def _subscribe(self, client: Client, inbox: Inbox) -> None:
        nodes = await find_nodes(self._config, client)
        names: dict[int, str] = {}

        async def deliver(result: ua.PublishResult) -> None:
            """Called for each delivery and each sign of life; asyncua asks the server for the next one when this returns."""
            await inbox.room()
            inbox.put(self._samples(names, result))
            for notification in result.NotificationMessage.NotificationData or ():
                if isinstance(notification, ua.StatusChangeNotification) and not notification.Status.is_good():
                    inbox.lose(ConnectionError(notification.Status.name))

        publishing_s = self._config.publishing_s
        subscription = await client.uaclient.create_subscription(
            ua.CreateSubscriptionParameters(
                RequestedPublishingInterval=1000 * publishing_s,
                RequestedLifetimeCount=max(30, int(_LIFE_S / publishing_s)),
                RequestedMaxKeepAliveCount=max(1, int(self._config.timeout_s / publishing_s)),
                MaxNotificationsPerPublish=10_000,
                PublishingEnabled=True,
            ),
            deliver,
        )
        inbox.silence_s = 3 * subscription.RevisedMaxKeepAliveCount * subscription.RevisedPublishingInterval / 1000
        failed = dict(nodes.failed)
        for part in chunks(nodes.found, self._config.chunk):
            handles = range(len(names) + 1, len(names) + len(part) + 1)
            names.update(zip(handles, (tag.name for tag, _ in part), strict=True))
            parameters = ua.CreateMonitoredItemsParameters(
                SubscriptionId=subscription.SubscriptionId,
                TimestampsToReturn=ua.TimestampsToReturn.Both,
                ItemsToCreate=[self._monitor(*item) for item in zip(handles, part, strict=True)],
            )
            for (tag, _), result in zip(part, await client.uaclient.create_monitored_items(parameters), strict=True):
                if not result.StatusCode.is_good():
                    failed[tag.name] = f"{tag.node or tag.path}: {result.StatusCode.name}"
        self._report_unreadable(failed)
        now = time.time_ns()
        inbox.put(Sample(tag, None, Quality.BAD, now, now) for tag in failed)

    def _monitor(self, handle: int, found: tuple[OpcUaTag, ua.NodeId]) -> ua.MonitoredItemCreateRequest:
        return ua.MonitoredItemCreateRequest(
            ItemToMonitor=item_of(*found),
            MonitoringMode=ua.MonitoringMode.Reporting,
            RequestedParameters=ua.MonitoringParameters(
                ClientHandle=handle,
                SamplingInterval=1000 * self._config.sampling_s,
                QueueSize=self._config.server_queue,
                DiscardOldest=True,
            ),
        )

    def _samples(self, names: dict[int, str], result: ua.PublishResult) -> list[Sample]:
        now = time.time_ns()
        samples: list[Sample] = []
        for notification in result.NotificationMessage.NotificationData or ():
            if isinstance(notification, ua.DataChangeNotification):
                for item in notification.MonitoredItems:
                    name = names[item.ClientHandle]
                    samples.append(sample(name, item.Value, now))
                    if overflowed(item.Value):
                        self._once.failed(name, f"the server dropped changes of {name}; raise queue_size")
        return samples

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
