"""A subscription's deliveries: asked for ahead, taken in order, acknowledged to the server once they are stored.

asyncua's own loop acknowledges a delivery when it has been decoded. This one uses asyncua's channel and session, and holds the
requests itself, so that a delivery is acknowledged behind the gateway's store, and a busy gateway just asks for no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import BadTimeout, BadTooManyPublishRequests

from connectors.opcua.config import OpcUaConfig
from connectors.opcua.notifications import Delivery, parse

AHEAD = 2
"""Requests that wait at the server, so that one delivery can be on its way while another is stored."""

_LIFE_S = 600.0
"""How long the server is asked to keep the subscription while nobody asks for deliveries."""


class Subscription:
    """One subscription of a session, for the time of one connection. One reader."""

    def __init__(self, client: Client, config: OpcUaConfig) -> None:
        self._client = client
        self._config = config
        self._id = 0
        self._ahead = AHEAD
        self._stored: list[int] = []
        self._requests: deque[asyncio.Task[Buffer]] = deque()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.silence_s = 60.0
        """How long nothing may come, not even a sign of life."""

    async def open(self) -> None:
        """Create it on the server. Raises OSError, TimeoutError, UaError."""
        publishing_s = self._config.publishing_s
        request = ua.CreateSubscriptionRequest(
            Parameters=ua.CreateSubscriptionParameters(
                RequestedPublishingInterval=1000 * publishing_s,
                RequestedLifetimeCount=max(30, int(_LIFE_S / publishing_s)),
                RequestedMaxKeepAliveCount=max(1, int(self._config.timeout_s / publishing_s)),
                MaxNotificationsPerPublish=min(10_000, self._config.buffer // AHEAD),
                PublishingEnabled=True,
            )
        )
        answer = struct_from_binary(ua.CreateSubscriptionResponse, await self._send(request)).Parameters
        self._id = answer.SubscriptionId
        self.silence_s = 3 * answer.RevisedMaxKeepAliveCount * answer.RevisedPublishingInterval / 1000

    async def monitor(self, items: list[ua.MonitoredItemCreateRequest]) -> list[ua.StatusCode]:
        """Follow these variables; how each was taken. Raises OSError, TimeoutError, UaError."""
        parameters = ua.CreateMonitoredItemsParameters(
            SubscriptionId=self._id, TimestampsToReturn=ua.TimestampsToReturn.Both, ItemsToCreate=items
        )
        return [result.StatusCode for result in await self._client.uaclient.create_monitored_items(parameters)]

    async def next(self) -> list[Delivery]:
        """What has come since the last call, with changes or without; waits for one. Cancellation is safe.

        Raises TimeoutError after ``silence_s`` without even a sign of life, else OSError or UaError.
        """
        async with asyncio.timeout(self.silence_s):
            while not (self._requests and self._requests[0].done()):
                self._ask()
                waiting: set[asyncio.Future[Any]] = {self._requests[0], self._lost}
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if self._lost.done():
                    self._lost.result()
        deliveries = []
        while self._requests and self._requests[0].done():
            request = self._requests.popleft()
            try:
                deliveries.append(parse(request.result()))
            except BadTooManyPublishRequests:
                self._ahead = max(1, self._ahead - 1)
            except BadTimeout:  # the server has let the request wait for long enough: ask again
                continue
        self._ask()
        return deliveries

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        """They are stored: with the next request the server is told that it may forget them."""
        self._stored.extend(delivery.sequence for delivery in deliveries if delivery.sequence)

    def lose(self, error: Exception) -> None:
        """The connection is gone: whoever waits for deliveries gets ``error``."""
        if not self._lost.done():
            self._lost.set_exception(error)

    async def close(self) -> None:
        """Wait for nothing more. The server drops the subscription with the session."""
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        self._requests.clear()
        self._lost.cancel()

    def _ask(self) -> None:
        while len(self._requests) < self._ahead:
            stored, self._stored = self._stored, []
            request = ua.PublishRequest(
                Parameters=ua.PublishParameters([ua.SubscriptionAcknowledgement(self._id, number) for number in stored])
            )
            self._requests.append(asyncio.create_task(self._send(request, timeout_s=0.0), name="publish"))

    async def _send(self, request: object, timeout_s: float | None = None) -> Buffer:
        """The bytes of the answer; 0: however long it takes."""
        protocol = self._client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the connection is closed")
        answer: Buffer = await protocol.send_request(request, timeout_s)
        return answer
