"""The store as metrics: ``fedfab_store_…``, with the layer (raw, features, results), and of whom (source, end, model)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.store.store import Store
from gateway.store.upkeep import Upkeep


class StoreMetrics:
    """Everything is counted where it happens; asking costs a look at one small table."""

    def __init__(self, store: Store, upkeep: Upkeep) -> None:
        self._store, self._upkeep = store, upkeep

    def collect(self) -> Iterator[Metric]:
        """All families, those without values too."""
        labels = ["layer", "of"]
        size = GaugeMetricFamily("fedfab_store_bytes", "Bytes of stored blocks.", labels=labels)
        blocks = GaugeMetricFamily("fedfab_store_blocks", "Blocks.", labels=labels)
        entries = GaugeMetricFamily("fedfab_store_entries", "Samples, rows or predictions.", labels=labels)
        dropped = CounterMetricFamily("fedfab_store_dropped_entries", "Entries that retention dropped.", labels=labels)
        freed = CounterMetricFamily("fedfab_store_dropped_bytes", "Bytes that retention dropped.", labels=labels)
        unprepared = CounterMetricFamily(
            "fedfab_store_dropped_unprepared_samples", "Dropped samples that no feature was made of.", labels=["source"]
        )
        damaged = CounterMetricFamily("fedfab_store_damaged_blocks", "Damaged blocks set aside.", labels=labels)
        lost = CounterMetricFamily("fedfab_store_damaged_entries", "Entries of damaged blocks.", labels=labels)
        for layer, names in self._store.amounts().items():
            for name, held in names.items():
                of = [layer, name]
                size.add_metric(of, held.bytes)
                blocks.add_metric(of, held.blocks)
                entries.add_metric(of, held.entries)
                dropped.add_metric(of, held.dropped_entries)
                freed.add_metric(of, held.dropped_bytes)
                damaged.add_metric(of, held.damaged_blocks)
                lost.add_metric(of, held.damaged_entries)
                if layer == "raw":
                    unprepared.add_metric([name], held.unprepared)
        yield from (size, blocks, entries, dropped, freed, unprepared, damaged, lost)
        yield from self._file()

    def _file(self) -> Iterator[Metric]:
        file = self._store.file
        yield GaugeMetricFamily("fedfab_store_file_bytes", "The file and its log on disk.", file.size())
        yield GaugeMetricFamily("fedfab_store_full", "1 while new samples are refused.", self._store.full is not None)
        yield CounterMetricFamily("fedfab_store_renewals", "Times a damaged file was set aside.", file.renewed)
        yield CounterMetricFamily("fedfab_store_merged_blocks", "Blocks saved by merging.", self._upkeep.merges)
        yield CounterMetricFamily("fedfab_store_upkeep_seconds", "Time spent on upkeep.", self._upkeep.seconds)
        yield from file.commits.collect()


def summary(store: Store) -> dict[str, Any]:
    """For the status: each layer with what it holds, what was dropped, what was damaged. JSON-serialisable."""
    layers = {
        layer: {
            "entries": sum(held.entries for held in names.values()),
            "bytes": sum(held.bytes for held in names.values()),
            "dropped": sum(held.dropped_entries for held in names.values()),
            "damaged": sum(held.damaged_entries for held in names.values()),
        }
        for layer, names in store.amounts().items()
    }
    return {"layers": layers, "file_bytes": store.file.size(), "renewals": store.file.renewed, "full": store.full}
