"""What the latest tasks have come to, round by round: for metrics, for a screen, for an alert when a loss rises (clause 9.4.3e)."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from federation.rounds import RoundReport

log = structlog.get_logger()

TASKS = 20
"""Tasks remembered; the one heard of longest ago is forgotten."""
LOSSES = 120
"""Rounds remembered of each group."""


@dataclass(slots=True)
class Course:
    """How one group of a task (an end, a cluster, the cloud) has learned so far."""

    latest: RoundReport
    losses: deque[float] = field(default_factory=lambda: deque(maxlen=LOSSES))
    """Training loss of each round, the newest last."""
    rising: int = 0
    """Rounds in a row whose loss was greater than that of the round before."""

    def take(self, report: RoundReport) -> None:
        """One more round. A round that a crash undid and that comes again counts once."""
        again = not report.final and report.round <= self.latest.round and bool(self.losses)
        self.latest = report
        if report.final or report.train_loss is None or again:
            return
        rises = bool(self.losses) and report.train_loss > self.losses[-1]
        self.rising = self.rising + 1 if rises else 0
        self.losses.append(report.train_loss)


class History:
    """Courses by task and group, and how many rounds there were since the start."""

    def __init__(self) -> None:
        self.tasks: OrderedDict[str, dict[str, Course]] = OrderedDict()
        self.rounds = 0

    def note(self, task: str, group: str, report: RoundReport) -> None:
        """A round has ended; said in the log, too."""
        log.info(
            "model evaluated" if report.final else "round done",
            task=task,
            group=group,
            layer=report.layer,
            round=report.round,
            train_loss=report.train_loss,
            metrics=report.metrics,
            samples=report.samples,
            seconds=round(report.seconds, 3),
            missing=report.reasons or report.missing,
        )
        courses = self.tasks.setdefault(task, {})
        self.tasks.move_to_end(task)
        courses.setdefault(group, Course(report)).take(report)
        self.rounds += not report.final
        while len(self.tasks) > TASKS:
            self.tasks.popitem(last=False)

    def of(self, task: str) -> dict[str, dict[str, Any]]:
        """For each group of a task its latest report and its losses; JSON-serialisable."""
        courses = self.tasks.get(task, {})
        return {group: {**course.latest.to_json(), "losses": list(course.losses)} for group, course in courses.items()}

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_task_…``, ``fedfab_rounds_total``; labels task, group, and for validation end and metric."""
        labels = ["task", "group"]
        number = GaugeMetricFamily("fedfab_task_round", "The last finished round.", labels=labels)
        loss = GaugeMetricFamily("fedfab_task_train_loss", "Training loss of the last round.", labels=labels)
        rising = GaugeMetricFamily(
            "fedfab_task_loss_rising_rounds", "Rounds in a row in which the training loss rose.", labels=labels
        )
        seconds = GaugeMetricFamily("fedfab_task_round_duration_seconds", "What the last round took.", labels=labels)
        samples = GaugeMetricFamily("fedfab_task_samples", "Samples the last round learned from.", labels=labels)
        missing = GaugeMetricFamily("fedfab_task_missing_members", "Members the last round did without.", labels=labels)
        pooled = GaugeMetricFamily(
            "fedfab_task_validation", "Validation of the last round over all ends.", labels=[*labels, "metric"]
        )
        per_end = GaugeMetricFamily(
            "fedfab_end_validation", "Validation of the last round at one end.", labels=[*labels, "end", "metric"]
        )
        for task, courses in list(self.tasks.items()):
            for group, course in list(courses.items()):
                key, latest = [task, group], course.latest
                number.add_metric(key, latest.round)
                seconds.add_metric(key, latest.seconds)
                samples.add_metric(key, latest.samples)
                missing.add_metric(key, len(latest.missing))
                rising.add_metric(key, course.rising)
                if course.losses:
                    loss.add_metric(key, course.losses[-1])
                for metric, value in latest.metrics.items():
                    pooled.add_metric([*key, metric], value)
                for end, metrics in latest.per_end.items():
                    for metric, value in metrics.items():
                        per_end.add_metric([*key, end, metric], value)
        yield from (number, loss, rising, seconds, samples, missing, pooled, per_end)
        yield CounterMetricFamily("fedfab_rounds", "Rounds finished since the start.", value=self.rounds)
