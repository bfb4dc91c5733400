"""What the federation counts of itself, for members and aggregators alike: plain counters, read as Prometheus metrics.

    fedfab_federation_link_up{peer}                     1 while a session with the aggregator is open
    fedfab_federation_sessions_total                    sessions opened: the first, and every reconnect
    fedfab_federation_sent_bytes_total{peer}            bodies of messages and blobs, sealed; without HTTP and TLS around them
    fedfab_federation_received_bytes_total{peer}
    fedfab_federation_sent_messages_total{peer}         handed over, or taken in from that peer
    fedfab_federation_received_messages_total{peer}
    fedfab_federation_repeated_messages_total{peer}     came again and were told from new ones
    fedfab_federation_message_bytes{direction}          histogram of sealed messages (packet sizes)
    fedfab_federation_poll_seconds                      histogram: from asking for messages to the answer
    fedfab_federation_clock_skew_seconds                how far this machine's clock is ahead of the aggregator's

`Meter.buffers` tells how full the outbox is, in messages and in bytes, for the families that all bounded buffers share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.metrics import Buffer, counter, gauge
from common.watchdog import Pulse

_SIZES = (1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
_WAITS = (0.01, 0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 90.0)


class Meter:
    """One for a participant, or for a hub; it outlives the node it is given to, so that a reconnect resets nothing."""

    def __init__(self) -> None:
        self.up: dict[str, bool] = {}
        self.sessions = 0
        self.sent_bytes: Counter[str] = Counter()
        self.received_bytes: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.skew_s = 0.0
        self.polling = Pulse("federation", allow_s=150.0)
        """A long poll waits for messages, then for the line to break, and both is well."""
        self.outbox: Buffer | None = None
        self.outbox_bytes: Buffer | None = None
        self._poll = Histogram(
            "fedfab_federation_poll_seconds", "From asking for messages to the answer.", buckets=_WAITS, registry=None
        )
        self._sizes = Histogram(
            "fedfab_federation_message_bytes",
            "Sealed messages.",
            ["direction"],
            buckets=_SIZES,
            registry=None,
        )
        self._size_sent, self._size_received = self._sizes.labels("sent"), self._sizes.labels("received")

    def message_sent(self, peer: str, size: int) -> None:
        """A sealed message of ``size`` bytes went to ``peer``."""
        self.sent[peer] += 1
        self.sent_bytes[peer] += size
        self._size_sent.observe(size)

    def message_received(self, peer: str, size: int) -> None:
        """A sealed message of ``size`` bytes came over the line from ``peer``."""
        self.received[peer] += 1
        self.received_bytes[peer] += size
        self._size_received.observe(size)

    def polled(self, seconds: float) -> None:
        """A question for messages was answered."""
        self._poll.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """See the module's docstring."""
        up = GaugeMetricFamily(
            "fedfab_federation_link_up", "1 while a session with the aggregator is open.", labels=["peer"]
        )
        for peer, is_up in dict(self.up).items():
            up.add_metric([peer], float(is_up))
        yield up
        yield counter("fedfab_federation_sessions", "Sessions opened: the first, and every reconnect.", self.sessions)
        yield _by_peer("sent_bytes", "Sealed bytes sent.", self.sent_bytes)
        yield _by_peer("received_bytes", "Sealed bytes received.", self.received_bytes)
        yield _by_peer("sent_messages", "Messages handed over.", self.sent)
        yield _by_peer("received_messages", "Messages that came.", self.received)
        yield _by_peer("repeated_messages", "Messages that came again and were told from new ones.", self.repeated)
        yield from self._sizes.collect()
        yield from self._poll.collect()
        yield gauge(
            "fedfab_federation_clock_skew_seconds",
            "How far this machine's clock is ahead of the aggregator's.",
            self.skew_s,
        )

    def buffers(self) -> Iterator[Buffer]:
        """What waits for the aggregator; dropped is what was refused for want of room. A hub has none."""
        return (buffer for buffer in (self.outbox, self.outbox_bytes) if buffer is not None)


def _by_peer(name: str, what: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"fedfab_federation_{name}", what, labels=["peer"])
    for peer, count in dict(counts).items():
        family.add_metric([peer], count)
    return family
