"""What inference counts, for Prometheus and for the protocol's statistics extension.

Yields ``fedfab_inference_requests_total`` {model, version, status}, ``…_queue_seconds`` and ``…_compute_seconds`` {model}, ``…_seconds``
{model} (all of it, reading and writing included), ``…_batch_windows`` {model}, ``…_denied_total`` and ``…_flagged_total``,
``…_received_bytes_total``, ``…_sent_bytes_total``, ``…_in_flight`` and its limit, ``…_queue_depth`` {model} and its limit,
``…_model_load_seconds`` and ``…_model_info`` {model, version}, ``fedfab_results_written_total`` and ``…_dropped_total``.
Counting is plain addition: it happens for every request, a scrape every few seconds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
WINDOWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0, 16384.0)


class Histogram:
    """How often which value came."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """``value`` came, perhaps several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        """How many values came."""
        return sum(self.counts)

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and how many were not above it, as Prometheus has it."""
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class ModelMetrics:
    """What is counted for each model."""

    def __init__(self) -> None:
        self.queue = Histogram(SECONDS)
        self.compute = Histogram(SECONDS)
        """Of each request: the whole of the run it was in."""
        self.total = Histogram(SECONDS)
        self.windows = Histogram(WINDOWS)
        """Of each run."""


class Metrics:
    """The counters. Written by the event loop only; a scrape in a thread may be a request behind."""

    def __init__(self) -> None:
        self.models: dict[str, ModelMetrics] = {}
        self.requests: dict[tuple[str, str, int], int] = {}
        """Of each model, version and HTTP status; both are "" where the request was refused before they were known."""
        self.denied: dict[str, int] = {}
        """Of each error code: who did not prove who he is, or may not do that."""
        self.flagged: dict[tuple[str, str], int] = {}
        """Of each model and flag: answers from stale or unusual inputs."""
        self.received_bytes = 0
        self.sent_bytes = 0

    def model(self, name: str) -> ModelMetrics:
        """The counters of one model."""
        found = self.models.get(name)
        if found is None:
            found = self.models[name] = ModelMetrics()
        return found

    def ran(self, model: str, windows: int, seconds: float, waited: list[float]) -> None:
        """One run answered ``len(waited)`` requests."""
        counters = self.model(model)
        counters.windows.add(windows)
        counters.compute.add(seconds, len(waited))
        for wait in waited:
            counters.queue.add(wait)

    def answered(self, model: str, version: str, status: int) -> None:
        """One request got its answer, or its refusal."""
        key = model, version, status
        self.requests[key] = self.requests.get(key, 0) + 1

    def deny(self, code: str) -> None:
        """Somebody was not let in."""
        self.denied[code] = self.denied.get(code, 0) + 1

    def flag(self, model: str, flag: str) -> None:
        """An answer bears this flag."""
        key = model, flag
        self.flagged[key] = self.flagged.get(key, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Families of everything counted here; `InferenceServer.collect` adds what it holds."""
        yield from _histograms(dict(self.models))
        yield _counters(
            "requests", "Requests by model, version and HTTP status.", ("model", "version", "status"), self.requests
        )
        yield _counters(
            "denied",
            "Requests of those who may not ask, by error code.",
            ("code",),
            {(code,): n for code, n in dict(self.denied).items()},
        )
        yield _counters(
            "flagged", "Answers from inputs that are stale or out of range.", ("model", "flag"), self.flagged
        )
        yield CounterMetricFamily("fedfab_inference_received_bytes", "Bodies of requests.", value=self.received_bytes)
        yield CounterMetricFamily("fedfab_inference_sent_bytes", "Bodies of answers.", value=self.sent_bytes)

    def statistics(self, model: str, version: str) -> dict[str, object]:
        """One entry of ``model_stats`` in the protocol's statistics extension. Durations are of all versions of the model."""
        counters = self.model(model)
        found = {status: n for (name, number, status), n in self.requests.items() if (name, number) == (model, version)}
        good = sum(n for status, n in found.items() if status < 400)
        return {
            "name": model,
            "version": version,
            "inference_count": good,
            "execution_count": counters.windows.count,
            "inference_stats": {
                "success": {"count": good, "ns": round(counters.total.total * 1e9)},
                "fail": {"count": sum(found.values()) - good, "ns": 0},
                "queue": {"count": counters.queue.count, "ns": round(counters.queue.total * 1e9)},
                "compute_infer": {"count": counters.compute.count, "ns": round(counters.compute.total * 1e9)},
            },
        }


def _histograms(models: Mapping[str, ModelMetrics]) -> Iterator[Metric]:
    queue = HistogramMetricFamily(
        "fedfab_inference_queue_seconds", "Time a request waited for its model.", labels=["model"]
    )
    compute = HistogramMetricFamily(
        "fedfab_inference_compute_seconds", "Time of the run a request was in.", labels=["model"]
    )
    total = HistogramMetricFamily(
        "fedfab_inference_seconds", "Time from a request's head to its answer.", labels=["model"]
    )
    windows = HistogramMetricFamily("fedfab_inference_batch_windows", "Windows computed in one run.", labels=["model"])
    for name, counters in models.items():
        queue.add_metric([name], counters.queue.buckets(), counters.queue.total)
        compute.add_metric([name], counters.compute.buckets(), counters.compute.total)
        total.add_metric([name], counters.total.buckets(), counters.total.total)
        windows.add_metric([name], counters.windows.buckets(), counters.windows.total)
    yield from (queue, compute, total, windows)


def _counters(name: str, what: str, labels: tuple[str, ...], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"fedfab_inference_{name}", what, labels=labels)
    for values, count in dict(counts).items():
        family.add_metric([str(value) for value in values], count)
    return family
