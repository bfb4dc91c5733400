"""Looks at the metrics now and then, and sees to it that those who must know are told: once when it fires, once when it is over.

What is active lies in a small file, so a restart neither repeats an alert nor forgets that it was over meanwhile. Each sink has a queue
of its own: one that cannot be reached delays no other.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.errors import FedfabError
from common.files import write_atomic
from common.metrics import Buffer, Registry
from common.validation import nearest
from gateway.config import AlertRule, Alerts
from gateway.config.seeing import SEVERITIES
from gateway.seeing.rules import Event, Rules, values_of
from gateway.seeing.sinks import Sink, sinks

log = structlog.get_logger()

QUEUE = 256
"""Events that wait for one sink. When more come, the oldest is dropped: the newest tell how things are."""
ATTEMPTS = 8
FIRST_PAUSE_S, MOST_PAUSE_S = 1.0, 120.0

Sleep = Callable[[float], Awaitable[None]]


class Watch:
    """The alert rules of one gateway over one registry. ``sleep`` and ``now`` are for tests."""

    def __init__(
        self,
        registry: Registry,
        alerts: Alerts,
        rules: tuple[AlertRule, ...],
        *,
        gateway: str,
        kept: Path,
        sleep: Sleep = asyncio.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.rules = Rules(rules, alerts.repeat_s)
        self.deliveries = [Delivery(sink, sleep) for sink in sinks(alerts, gateway)]
        self._registry, self._alerts, self._gateway, self._kept = registry, alerts, gateway, kept
        self._sleep, self._now = sleep, now
        self._unknown: set[str] = set()
        self._jobs: dict[Delivery, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        self.rules.restore(await asyncio.to_thread(_read, self._kept))
        async with asyncio.TaskGroup() as self._group:
            self._start()
            while True:
                await self.look()
                await self._sleep(self._alerts.every_s)

    async def look(self) -> list[Event]:
        """Judge all rules by the metrics of now, and hand over what is to be told."""
        values = values_of(await asyncio.to_thread(self._registry.families))
        self._complain(values)
        events = self.rules.evaluate(values, self._now())
        for event in events:
            _log(event)
            for delivery in self.deliveries:
                delivery.put(event)
        if events:
            try:
                await asyncio.to_thread(write_atomic, self._kept, json.dumps(self.rules.to_json()).encode())
            except OSError as error:  # the disk is full, say: that is the last moment to fall silent
                log.warning("active alerts not kept", problem=str(error))
        return events

    def apply(self, alerts: Alerts, rules: tuple[AlertRule, ...]) -> None:
        """Other rules and sinks from now on; what waits for a sink that stays is still told."""
        self.rules.apply(rules, alerts.repeat_s)
        self._unknown = set()
        before = {delivery.sink.config: delivery for delivery in self.deliveries}
        self.deliveries = [
            before.get(sink.config) or Delivery(sink, self._sleep) for sink in sinks(alerts, self._gateway)
        ]
        self._alerts = alerts
        self._start()

    def status(self) -> list[dict[str, Any]]:
        """Alerts that have fired and are not over, the worst first; JSON-serialisable."""
        found = [
            {
                "alert": rule.name,
                "severity": rule.severity,
                "labels": dict(labels),
                "value": state.value,
                "since": state.since,
                "message": rule.told(dict(labels), state.value),
            }
            for rule, labels, state in self.rules.firing()
        ]
        return sorted(found, key=lambda each: (-SEVERITIES.index(each["severity"]), each["since"]))

    def buffers(self) -> Iterator[Buffer]:
        """What waits for each sink."""
        for each in self.deliveries:
            yield Buffer(f"alerts-{each.sink.config.name}", each.waiting, QUEUE, each.dropped)

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_alert_…``."""
        active = GaugeMetricFamily(
            "fedfab_alert_active", "Series for which the rule has fired.", labels=["alert", "severity"]
        )
        counts = Counter(rule.name for rule, _, _ in self.rules.firing())
        for rule in self.rules.rules:
            active.add_metric([rule.name, rule.severity], counts[rule.name])
        yield active
        told = CounterMetricFamily(
            "fedfab_alert_notifications", "Messages to a sink, by what became of them.", labels=["sink", "result"]
        )
        for delivery in self.deliveries:
            told.add_metric([delivery.sink.config.name, "sent"], delivery.sent)
            told.add_metric([delivery.sink.config.name, "failed"], delivery.failed)
        yield told

    def _start(self) -> None:
        """Let every sink work, and no other."""
        if self._group is None:
            return
        for gone in self._jobs.keys() - self.deliveries:
            self._jobs.pop(gone).cancel()
        for each in self.deliveries:
            if each not in self._jobs:
                self._jobs[each] = self._group.create_task(each.run(), name=f"alerts to {each.sink.config.name}")

    def _complain(self, values: dict[str, Any]) -> None:
        """Once: a rule that can never fire is worse than none."""
        for rule in self.rules.unknown(values):
            if rule.name not in self._unknown:
                self._unknown.add(rule.name)
                near = nearest(rule.metric or "", values)
                hint = f'did you mean "{near}"?' if near else "GET /metrics shows all"
                log.warning("alert rule without effect: no such metric", rule=rule.name, metric=rule.metric, hint=hint)


class Delivery:
    """One sink and what waits for it. Retried with growing pauses; after the last attempt the event is dropped, and counted."""

    def __init__(self, sink: Sink, sleep: Sleep = asyncio.sleep) -> None:
        self.sink = sink
        self.sent = 0
        self.failed = 0
        """Attempts that were not taken."""
        self.dropped = 0
        self._sleep = sleep
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE)

    @property
    def waiting(self) -> int:
        """Events not told yet."""
        return self._queue.qsize()

    def status(self) -> dict[str, Any]:
        """How telling it goes; JSON-serialisable."""
        counts = {"sent": self.sent, "failed": self.failed, "waiting": self.waiting, "dropped": self.dropped}
        return {"name": self.sink.config.name, **counts}

    def put(self, event: Event) -> None:
        """Have it told, if it is bad enough for this sink."""
        if SEVERITIES.index(event.severity) < SEVERITIES.index(self.sink.config.least):
            return
        if self._queue.full():
            self._queue.get_nowait()
            self.dropped += 1
        self._queue.put_nowait(event)

    async def run(self) -> None:
        """Tell one after the other, until cancelled."""
        while True:
            await self._tell(await self._queue.get())

    async def _tell(self, event: Event) -> None:
        for attempt in range(ATTEMPTS):
            try:
                await self.sink.send(event)
            except FedfabError as error:
                self.failed += 1
                if attempt == 0:
                    log.warning("alert not told, trying again", sink=self.sink.config.name, problem=error.message)
                await self._sleep(min(MOST_PAUSE_S, FIRST_PAUSE_S * 2.0**attempt))
            else:
                self.sent += 1
                return
        self.dropped += 1
        log.error("alert given up", sink=self.sink.config.name, alert=event.alert, attempts=ATTEMPTS)


async def trial(alerts: Alerts, gateway: str, now: float) -> list[tuple[str, FedfabError | None]]:
    """Send a trial through every sink at once; for each its name, and why it did not work."""

    async def attempt(sink: Sink) -> tuple[str, FedfabError | None]:
        what = f"This is a trial of the alerts of {gateway}; nothing is wrong."
        event = Event("fired", "trial", "info", {}, 0.0, 0.0, what, now, now)
        try:
            await sink.send(event)
        except FedfabError as error:
            return sink.config.name, error
        return sink.config.name, None

    return await asyncio.gather(*(attempt(sink) for sink in sinks(alerts, gateway)))


def _read(kept: Path) -> Sequence[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        return []
    return found


def _log(event: Event) -> None:
    write = {"info": log.info, "warning": log.warning, "critical": log.error}[event.severity]
    if event.what == "cleared":
        write = log.info
    write(f"alert {event.what}", alert=event.alert, severity=event.severity, labels=event.labels, problem=event.message)
