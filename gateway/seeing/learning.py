"""Tasks, models and workers as metrics: what is learned here, with what, and how good it is (clause 9.4.3e)."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.metrics import gauge
from gateway.modelstore import ModelStore
from gateway.programs import Programs, State
from gateway.workers import WorkerPool


class Tasks:
    """Every task this gateway knows, and the course of the latest."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_tasks``, ``fedfab_task_…``, ``fedfab_end_validation``, ``fedfab_rounds_total``."""
        records = list(self._programs.records.values())
        counts = Counter(record.state for record in records)
        tasks = GaugeMetricFamily("fedfab_tasks", "Tasks by state.", labels=["state"])
        for state in get_args(State):
            tasks.add_metric([state], counts[state])
        yield tasks
        about = GaugeMetricFamily("fedfab_task_info", "1, with what a task is.", labels=["task", "name", "layer"])
        most = GaugeMetricFamily("fedfab_task_max_rounds", "Rounds the task may take.", labels=["task"])
        known = self._programs.history.tasks
        for record in records:
            if record.state == "running" or record.task in known:
                about.add_metric([record.task, record.spec.name, record.spec.layer], 1)
                most.add_metric([record.task], record.spec.rounds.max)
        yield from (about, most)
        yield from self._programs.history.collect()


class Models:
    """The models in use."""

    def __init__(self, models: ModelStore) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_model_…``, label model."""
        version = GaugeMetricFamily("fedfab_model_version", "The version in use.", labels=["model"])
        age = GaugeMetricFamily("fedfab_model_age_seconds", "Since the version in use was made.", labels=["model"])
        quality = GaugeMetricFamily(
            "fedfab_model_validation", "Validation of the version in use.", labels=["model", "end", "metric"]
        )
        now = time.time()
        for name in self._models.names():
            in_use = self._models.in_use(name)
            if in_use is None:
                continue
            evidence = self._models.evidence(name, in_use.version)
            version.add_metric([name], in_use.version)
            age.add_metric([name], now - evidence.created.timestamp())
            for end, metrics in evidence.metrics.items():
                for metric, value in metrics.items():
                    quality.add_metric([name, end, metric], value)
        yield from (version, age, quality)


class Workers:
    """The processes that train."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_worker…``, label worker."""
        found = self._pool.status()
        calls = GaugeMetricFamily("fedfab_worker_calls", "Calls that are not answered yet.", labels=["worker"])
        deaths = CounterMetricFamily("fedfab_worker_deaths", "Times it died or was replaced.", labels=["worker"])
        for each in found:
            calls.add_metric([str(each.number)], each.calls)
            deaths.add_metric([str(each.number)], each.lost)
        yield gauge("fedfab_workers", "Workers that run.", sum(each.pid is not None for each in found))
        yield from (calls, deaths)

    def pids(self) -> Mapping[str, int]:
        """The daemon and its workers, for `common.machine.Processes`."""
        running = {f"worker-{each.number}": each.pid for each in self._pool.status() if each.pid is not None}
        return {"daemon": os.getpid(), **running}
