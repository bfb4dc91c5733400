"""What a daemon shows of itself to Prometheus: collectors from all its parts, read at each scrape, as text.

A part keeps plain counters and offers an object with ``collect()`` (`prometheus_client`'s collector); it knows nothing of HTTP and
nothing of the others. Collectors run in a thread, so they copy a container before they walk through it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

log = structlog.get_logger()

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each histogram that nobody asks for


class Collector(Protocol):
    """A part that can be asked for its metrics."""

    def collect(self) -> Iterable[Metric]:
        """Families with their present values. A family without a value is yielded too, so that its name is always known."""
        ...


class Page(NamedTuple):
    """An answer to a scrape."""

    body: bytes
    content_type: str


class Registry:
    """All collectors of one daemon. One that fails costs its own metrics only, and is counted."""

    def __init__(self) -> None:
        self._collectors: dict[str, Collector] = {}
        self._failures: dict[str, int] = {}
        self._scraping = threading.Lock()
        self._encoded = CollectorRegistry(auto_describe=False)
        self._encoded.register(self)

    def add(self, name: str, collector: Collector) -> None:
        """Take a part in, or another in its place: a part that is made anew after a reload keeps its name."""
        self._collectors[name] = collector
        self._failures.setdefault(name, 0)

    def remove(self, name: str) -> None:
        """Forget a part."""
        self._collectors.pop(name, None)

    def collect(self) -> Iterator[Metric]:
        """Every family of every part, one after the other."""
        for name, collector in list(self._collectors.items()):
            try:
                yield from list(collector.collect())
            except Exception as error:  # what one part cannot tell must not blind whoever watches the others
                if not self._failures[name]:
                    log.warning("metrics of a part are missing", part=name, problem=repr(error), exc_info=error)
                self._failures[name] += 1
        failures = CounterMetricFamily(
            "fedfab_scrape_failures", "Scrapes in which a part could not tell its metrics.", labels=["part"]
        )
        for name, count in list(self._failures.items()):
            failures.add_metric([name], count)
        yield failures

    def scrape(self, accept: str = "") -> Page:
        """The text that Prometheus reads, in the format the ``Accept`` header prefers. Call it in a thread."""
        encode, content_type = choose_encoder(accept)
        with self._scraping:  # deltas that a collector keeps are for one scrape at a time
            return Page(encode(self._encoded), content_type)

    def families(self) -> list[Metric]:
        """The same as data, for alert rules. Call it in a thread."""
        with self._scraping:
            return list(self.collect())


def gauge(name: str, what: str, value: float) -> GaugeMetricFamily:
    """A gauge without labels."""
    return GaugeMetricFamily(name, what, value=value)


def counter(name: str, what: str, value: float) -> CounterMetricFamily:
    """A counter without labels; ``name`` stands without ``_total``."""
    return CounterMetricFamily(name, what, value=value)


@dataclass(slots=True)
class Buffer:
    """How full something is that has a bound, and what it had to drop."""

    name: str
    depth: int
    limit: int
    dropped: int
    unit: str = "items"


def buffers(found: Iterable[Buffer]) -> Iterator[Metric]:
    """The three families that all bounded buffers share."""
    depth = GaugeMetricFamily("fedfab_buffer_depth", "What waits in a bounded buffer.", labels=["buffer"])
    limit = GaugeMetricFamily("fedfab_buffer_limit", "What the buffer holds at most.", labels=["buffer"])
    dropped = CounterMetricFamily("fedfab_buffer_dropped", "What did not fit and was dropped.", labels=["buffer"])
    for each in found:
        depth.add_metric([each.name], each.depth)
        limit.add_metric([each.name], each.limit)
        dropped.add_metric([each.name], each.dropped)
    yield from (depth, limit, dropped)
