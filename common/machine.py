"""The box and the daemon's processes as metrics (clause 9.4.3a): CPU, memory, network, disk, clock; sampled when asked."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from common.metrics import gauge

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class Box:
    """The machine this runs on. ``folders`` are those whose file systems must not fill up, by a name for the label."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_box_…``, and ``fedfab_build_info``."""
        build = GaugeMetricFamily("fedfab_build_info", "1, with the version that runs.", labels=["version"])
        build.add_metric([version("fedfab")], 1)
        yield build
        yield from _cpu()
        yield from _memory()
        yield from _disks(self._folders)
        yield from _network()
        yield from _clock()


def summary(folder: Path) -> dict[str, Any]:
    """The box in brief, for a status; JSON-serialisable. ``folder`` is where the data lies. CPU in seconds since it started."""
    times, memory, network = psutil.cpu_times(), psutil.virtual_memory(), psutil.net_io_counters()
    disk = psutil.disk_usage(str(folder))
    synchronised, error_s = clock()
    return {
        "cpus": psutil.cpu_count() or 1,
        "cpu_seconds": sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0),
        "cpu_idle_seconds": times.idle + getattr(times, "iowait", 0.0),
        "load": os.getloadavg()[0],
        "memory_bytes": memory.total,
        "memory_used_ratio": 1 - memory.available / memory.total,
        "disk_bytes": disk.total,
        "disk_free_bytes": disk.free,
        "disk_used_ratio": disk.percent / 100,
        "network_received_bytes": network.bytes_recv,
        "network_sent_bytes": network.bytes_sent,
        "clock_synchronised": synchronised,
        "clock_error_seconds": error_s,
    }


class Processes:
    """The daemon and its workers. ``pids`` is asked at each scrape: names for the label, and process ids."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._known: dict[int, psutil.Process] = {}

    def collect(self) -> Iterator[Metric]:
        """Names ``fedfab_process_…``, one series for each process; one that has just ended has none."""
        labels = ["process"]
        cpu = CounterMetricFamily("fedfab_process_cpu_seconds", "CPU time, user and system.", labels=labels)
        memory = GaugeMetricFamily("fedfab_process_memory_bytes", "Resident memory.", labels=labels)
        files = GaugeMetricFamily(
            "fedfab_process_open_files", "Open file descriptors, sockets included.", labels=labels
        )
        threads = GaugeMetricFamily("fedfab_process_threads", "Threads.", labels=labels)
        started = GaugeMetricFamily("fedfab_process_start_time_seconds", "When it started, Unix time.", labels=labels)
        read = CounterMetricFamily("fedfab_process_disk_read_bytes", "Bytes it had read from disk.", labels=labels)
        written = CounterMetricFamily("fedfab_process_disk_written_bytes", "Bytes it had written.", labels=labels)
        for name, process in self._running():
            with suppress(psutil.Error), process.oneshot():
                times, transfers = process.cpu_times(), process.io_counters()
                cpu.add_metric([name], times.user + times.system)
                memory.add_metric([name], process.memory_info().rss)
                files.add_metric([name], process.num_fds())
                threads.add_metric([name], process.num_threads())
                started.add_metric([name], process.create_time())
                read.add_metric([name], transfers.read_bytes)
                written.add_metric([name], transfers.write_bytes)
        yield from (cpu, memory, files, threads, started, read, written)

    def summary(self) -> list[dict[str, Any]]:
        """The same in brief, for a status; JSON-serialisable."""
        found = []
        for name, process in self._running():
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                found.append(
                    {
                        "name": name,
                        "pid": process.pid,
                        "cpu_seconds": times.user + times.system,
                        "memory_bytes": process.memory_info().rss,
                        "open_files": process.num_fds(),
                        "started": process.create_time(),
                    }
                )
        return found

    def _running(self) -> Iterable[tuple[str, psutil.Process]]:
        pids = dict(self._pids())
        self._known = {pid: process for pid, process in self._known.items() if pid in pids.values()}
        for name, pid in pids.items():
            with suppress(psutil.NoSuchProcess):
                yield name, self._known.setdefault(pid, psutil.Process(pid))


def clock() -> tuple[bool, float]:
    """Whether something keeps the system clock right (NTP, PTP), and by how many seconds it may be wrong at most. adjtimex(2)."""
    buffer = ctypes.create_string_buffer(256)  # struct timex, modes 0: only read
    state = ctypes.CDLL(None).adjtimex(buffer)
    longs = ctypes.cast(buffer, ctypes.POINTER(ctypes.c_long))
    return 0 <= state != _TIME_ERROR, longs[3] / 1e6  # modes (padded), offset, freq, maxerror in microseconds


def _cpu() -> Iterator[Metric]:
    seconds = CounterMetricFamily("fedfab_box_cpu_seconds", "CPU time of all cores.", labels=["mode"])
    for mode, value in psutil.cpu_times()._asdict().items():
        if not mode.startswith("guest"):  # counted in user and nice already
            seconds.add_metric([mode], value)
    yield seconds
    cores = psutil.cpu_count() or 1
    yield gauge("fedfab_box_cpus", "Cores.", cores)
    yield gauge("fedfab_box_load_ratio", "Load of the last minute, for each core.", os.getloadavg()[0] / cores)
    yield gauge("fedfab_box_boot_time_seconds", "When the box started, Unix time.", psutil.boot_time())
    heat = GaugeMetricFamily("fedfab_box_temperature_celsius", "What its sensors say.", labels=["sensor"])
    for chip, sensors in psutil.sensors_temperatures().items():
        for i, sensor in enumerate(sensors):
            heat.add_metric([f"{chip}/{sensor.label or i}"], sensor.current)
    yield heat


def _memory() -> Iterator[Metric]:
    memory = psutil.virtual_memory()
    yield gauge("fedfab_box_memory_size_bytes", "Memory of the box.", memory.total)
    yield gauge("fedfab_box_memory_available_bytes", "Memory that programs can still have.", memory.available)
    yield gauge("fedfab_box_memory_used_ratio", "Share of memory in use.", 1 - memory.available / memory.total)


def _disks(folders: Mapping[str, Path]) -> Iterator[Metric]:
    size = GaugeMetricFamily("fedfab_box_disk_size_bytes", "Size of the file system of a folder.", labels=["folder"])
    free = GaugeMetricFamily("fedfab_box_disk_free_bytes", "What an ordinary user may still write.", labels=["folder"])
    used = GaugeMetricFamily("fedfab_box_disk_used_ratio", "Share of the file system in use.", labels=["folder"])
    for name, folder in folders.items():
        with suppress(OSError):
            usage = psutil.disk_usage(str(folder))
            size.add_metric([name], usage.total)
            free.add_metric([name], usage.free)
            used.add_metric([name], usage.percent / 100)
    yield from (size, free, used)
    read = CounterMetricFamily("fedfab_box_disk_read_bytes", "Bytes read from a disk.", labels=["device"])
    written = CounterMetricFamily("fedfab_box_disk_written_bytes", "Bytes written to a disk.", labels=["device"])
    for device, transfers in (psutil.disk_io_counters(perdisk=True) or {}).items():
        if not device.startswith(("loop", "ram")):
            read.add_metric([device], transfers.read_bytes)
            written.add_metric([device], transfers.write_bytes)
    yield from (read, written)


def _network() -> Iterator[Metric]:
    labels = ["device"]
    received = CounterMetricFamily("fedfab_box_network_received_bytes", "Bytes received.", labels=labels)
    sent = CounterMetricFamily("fedfab_box_network_sent_bytes", "Bytes sent.", labels=labels)
    into = CounterMetricFamily("fedfab_box_network_received_packets", "Packets received.", labels=labels)
    out = CounterMetricFamily("fedfab_box_network_sent_packets", "Packets sent.", labels=labels)
    errors = CounterMetricFamily("fedfab_box_network_errors", "Packets lost or damaged, both ways.", labels=labels)
    for device, traffic in psutil.net_io_counters(pernic=True).items():
        received.add_metric([device], traffic.bytes_recv)
        sent.add_metric([device], traffic.bytes_sent)
        into.add_metric([device], traffic.packets_recv)
        out.add_metric([device], traffic.packets_sent)
        errors.add_metric([device], traffic.errin + traffic.errout + traffic.dropin + traffic.dropout)
    yield from (received, sent, into, out, errors)


def _clock() -> Iterator[Metric]:
    synchronised, error_s = clock()
    yield gauge("fedfab_box_clock_synchronised", "1 where NTP or PTP keeps the clock right.", float(synchronised))
    yield gauge("fedfab_box_clock_error_seconds", "How far the clock may be off, by the kernel's estimate.", error_s)
