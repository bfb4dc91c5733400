"""Alerts from a real registry: told once, kept over a restart, retried, dropped with a count, changed by a reload."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from common.metrics import Registry
from gateway.config import AlertRule, Alerts, Webhook
from gateway.errors import GatewayError
from gateway.seeing.rules import Event, values_of
from gateway.seeing.watch import ATTEMPTS, QUEUE, Delivery, Watch

RULE = AlertRule(name="hot", metric="fedfab_heat_celsius", above=80.0, message="{sensor} has {value} °C")


class Heat:
    """One metric, as hot as the test wants it."""

    value = 20.0

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("fedfab_heat_celsius", "Heat.", labels=["sensor"])
        family.add_metric(["oven"], self.value)
        yield family


class Told:
    """A sink that remembers, and fails as often as it is told to."""

    def __init__(self, failures: int = 0, least: str = "info") -> None:
        self.config = Webhook.model_validate({"name": "shift-leader", "url": "https://x", "least": least})
        self.events: list[Event] = []
        self.failures = failures

    async def send(self, event: Event) -> None:
        if self.failures:
            self.failures -= 1
            raise GatewayError("FF-ALERT-001", "not now")
        self.events.append(event)


class Clock:
    """Sleeping takes no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


def watch(folder: Path, *rules: AlertRule) -> tuple[Watch, Heat]:
    registry, heat = Registry(), Heat()
    made = Watch(registry, Alerts(shipped=False), rules or (RULE,), gateway="gateway-a", kept=folder / "alerts.json")
    registry.add("heat", heat)
    registry.add("alerts", made)
    return made, heat


@pytest.mark.clause("9.4.3a")
async def test_it_is_told_once_shown_while_it_lasts_and_over_once(tmp_path: Path) -> None:
    watched, heat = watch(tmp_path)
    sink = Told()
    watched.deliveries = [Delivery(sink)]
    telling = asyncio.create_task(watched.deliveries[0].run())
    with structlog.testing.capture_logs() as logged:
        for heat.value in (20.0, 90.0, 95.0, 70.0, 60.0):
            await watched.look()
            if heat.value == 95.0:
                (shown,) = watched.status()
                assert (shown["alert"], shown["message"], shown["value"]) == ("hot", "oven has 95 °C", 95.0)
                values = values_of(watched.collect())
                assert values["fedfab_alert_active"][("alert", "hot"), ("severity", "warning")] == 1  # type: ignore[index]
    await asyncio.sleep(0)
    telling.cancel()
    assert [(event.what, event.message) for event in sink.events] == [
        ("fired", "oven has 90 °C"),
        ("cleared", "oven has 70 °C"),
    ]
    assert [line["event"] for line in logged] == ["alert fired", "alert cleared"]
    assert watched.status() == []


async def test_a_restart_neither_tells_again_nor_forgets_to_say_that_it_is_over(tmp_path: Path) -> None:
    before, heat = watch(tmp_path)
    heat.value = 90.0
    assert [event.what for event in await before.look()] == ["fired"]
    after, heat = watch(tmp_path)
    seen: list[str] = []

    async def sleep(_: float) -> None:
        if len(seen) == 2:
            raise asyncio.CancelledError
        heat.value = 20.0
        seen.append("slept")

    after._sleep = sleep
    heat.value = 90.0
    with structlog.testing.capture_logs() as logged, pytest.raises(asyncio.CancelledError):
        await after.run()
    assert [line["event"] for line in logged] == ["alert cleared"]


async def test_a_sink_that_fails_is_tried_again_and_given_up_with_a_count() -> None:
    clock, event = Clock(), Event("fired", "hot", "warning", {}, 1.0, 0.0, "", 0.0, 0.0)
    recovers, dead = Told(failures=3), Told(failures=10**6)
    for sink in (recovers, dead):
        delivery = Delivery(sink, clock.sleep)
        delivery.put(event)
        job = asyncio.create_task(delivery.run())
        while delivery.sent + delivery.dropped == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        job.cancel()
        expected = (1, 3, 0) if sink is recovers else (0, ATTEMPTS, 1)
        assert (delivery.sent, delivery.failed, delivery.dropped) == expected
    assert clock.slept[:3] == [1.0, 2.0, 4.0]
    assert max(clock.slept) == 120.0, "the pauses grow, and not without end"


def test_a_full_queue_drops_the_oldest_and_counts() -> None:
    delivery = Delivery(Told())
    for i in range(QUEUE + 3):
        delivery.put(Event("fired", str(i), "warning", {}, 1.0, 0.0, "", 0.0, 0.0))
    assert (delivery.waiting, delivery.dropped) == (QUEUE, 3)


def test_a_sink_is_not_bothered_with_less_than_it_wants() -> None:
    delivery = Delivery(Told(least="critical"))
    delivery.put(Event("fired", "hot", "warning", {}, 1.0, 0.0, "", 0.0, 0.0))
    assert delivery.waiting == 0


async def test_a_rule_that_can_never_fire_is_told_once(tmp_path: Path) -> None:
    watched, _ = watch(tmp_path, RULE.model_copy(update={"metric": "fedfab_heat_celsus"}))
    with structlog.testing.capture_logs() as logged:
        await watched.look()
        await watched.look()
    (line,) = logged
    assert "no such metric" in line["event"]
    assert line["hint"] == 'did you mean "fedfab_heat_celsius"?'


async def test_a_reload_changes_rules_and_sinks_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    watched, heat = watch(tmp_path)
    heat.value = 90.0
    await watched.look()
    sinks: dict[str, Any] = {"shipped": False, "webhook": [{"name": "new", "url": "https://hooks.example"}]}
    watched.apply(Alerts.model_validate(sinks), (RULE, RULE.model_copy(update={"name": "warm", "above": 50.0})))
    kept = watched.deliveries
    assert [(event.alert, event.what) for event in await watched.look()] == [("warm", "fired")]
    watched.apply(Alerts.model_validate(sinks), (RULE,))
    assert watched.deliveries == kept, "what waits for a sink that stays is still told"
    assert kept[0].waiting == 1
