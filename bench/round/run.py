"""A federated round beside its floor and beside Flower: wall time, CPU, bytes and memory, real processes, one run.

Each contestant is a process tree of its own that says `round N` whenever a round is over; figures are medians over the rounds after the
first. Nothing trains: ends add noise to the parameters, so that only the framework is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

from rich.console import Console
from rich.table import Table

from trust.providers import cryptography as openssl
from trust.suite import providers, suite

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")
CONTESTANTS = {
    "floor": ["floor.py"],
    "fedfab intl": ["fedfab.py", "--suite", "intl"],
    "fedfab gm": ["fedfab.py", "--suite", "gm"],
    "flower": ["flower.py"],
}


@dataclass
class Figures:
    """Of one contestant. Seconds and bytes are of one round; memory is the sum of all processes' peaks."""

    contestant: str
    ends: int
    params: int
    wall_s: float
    cpu_s: float
    loopback_bytes: int
    memory_bytes: int
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10 ends, 10^6 parameters only")
    parser.add_argument("--ends", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--params", type=int, nargs="+", default=[10**4, 10**6, 10**7], choices=[10**4, 10**6, 10**7])
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ends, sizes = ([10], [10**6]) if options.quick else (options.ends, options.params)
    found = []
    for params in sizes:
        for count in ends:
            for name in options.only:
                figures = measure(name, count, params, options.rounds)
                found.append(figures)
                print(f"{name}: {figures.wall_s:.3f} s a round", flush=True)
    ciphers = cipher_speeds()
    (HERE / "results").mkdir(exist_ok=True)
    result = {
        "cores": len(os.sched_getaffinity(0)),
        "providers": providers(),
        "gm_bytes_per_s": ciphers,
        "figures": [asdict(figures) for figures in found],
        "gm_cipher_cpu_s": {f"{n}x{p}": cipher_time(n, p, ciphers) for p in sizes for n in ends},
    }
    (HERE / "results" / "round.json").write_text(json.dumps(result, indent=1))
    show(found, ciphers)


def measure(name: str, ends: int, params: int, rounds: int) -> Figures:
    """Run one contestant to its end."""
    script, *arguments = CONTESTANTS[name]
    command = [sys.executable, str(HERE / script), *arguments, "--ends", str(ends), "--params", str(params)]
    process = subprocess.Popen([*command, "--rounds", str(rounds)], stdout=subprocess.PIPE, text=True)
    memory = Memory(process.pid)
    marks = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("round "):
            marks.append((time.perf_counter(), cpu_seconds(process.pid), loopback_bytes()))
    peak = memory.stop()
    if process.wait() != 0 or len(marks) < 2:
        raise SystemExit(f"{name} failed with exit code {process.returncode} after {len(marks)} rounds")
    wall, cpu, sent = (statistics.median(later[i] - earlier[i] for earlier, later in pairwise(marks)) for i in range(3))
    return Figures(name, ends, params, wall, cpu, int(sent), peak, len(marks) - 1)


class Memory:
    """Samples the peak resident size of every process of a tree, the short-lived ones too while they live."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._highest = 0
        self._over = Event()
        self._thread = Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> int:
        """Most that the processes alive at one time had at their peaks, in bytes."""
        self._over.set()
        self._thread.join()
        return self._highest

    def _sample(self) -> None:
        while not self._over.wait(0.2):
            self._highest = max(self._highest, sum(peak_bytes(pid) for pid in tree(self._root)))


def tree(root: int) -> Iterator[int]:
    """A process and all below it."""
    yield root
    try:
        children = [
            int(pid) for task in Path(f"/proc/{root}/task").iterdir() for pid in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for pid in children:
        yield from tree(pid)


def peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def cpu_seconds(root: int) -> float:
    """CPU time of a tree so far, with that of its processes that have ended."""
    total = 0
    for pid in tree(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICK


def loopback_bytes() -> int:
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split()[1])


def cipher_speeds() -> dict[str, float]:
    """Bytes a second of CPU: the TLS library's SM4-GCM, the sealing provider's, and its SM3."""
    data, key, nonce = bytes(8 << 20), bytes(16), bytes(12)
    gm = suite("gm")
    out = memoryview(bytearray(len(data) + 16))
    tls = openssl.bulk()

    def speed(work: Callable[[], object]) -> float:
        best = float("inf")
        for _ in range(5):
            start = time.process_time()
            work()
            best = min(best, time.process_time() - start)
        return len(data) / best

    return {
        "tls": speed(lambda: tls.encrypt_into(key, nonce, data, b"", out)),
        "seal": speed(lambda: gm.encrypt_into(key, nonce, data, b"", out)),
        "digest": speed(lambda: gm.digest(data)),
    }


def cipher_time(ends: int, params: int, speeds: dict[str, float]) -> float:
    """CPU seconds that SM4 and SM3 alone take in a round of the suite gm.

    On the wire every byte is encrypted and decrypted by TLS. The model is sealed once and opened by each end; each update is sealed
    and opened once; sealing and opening both cost cipher and digest.
    """
    model = 4 * params
    sealed = model * (1 + ends + 2 * ends)
    return 2 * 2 * ends * model / speeds["tls"] + sealed * (1 / speeds["seal"] + 1 / speeds["digest"])


def show(found: list[Figures], speeds: dict[str, float]) -> None:
    table = Table("ends x parameters", "contestant", "wall", "of floor", "CPU", "bytes", "memory")
    for figures in found:
        same = [other for other in found if (other.ends, other.params) == (figures.ends, figures.params)]
        floor = next((other.wall_s for other in same if other.contestant == "floor"), None)
        table.add_row(
            f"{figures.ends} x {figures.params:.0e}",
            figures.contestant,
            f"{figures.wall_s:.3f} s",
            f"{figures.wall_s / floor:.1f}" if floor else "",
            f"{figures.cpu_s:.2f} s",
            f"{figures.loopback_bytes / 1e6:.1f} MB",
            f"{figures.memory_bytes / 1e6:.0f} MB",
        )
    console = Console()
    console.print(table)
    for ends, params in sorted({(figures.ends, figures.params) for figures in found}):
        seconds = cipher_time(ends, params, speeds)
        console.print(f"SM4 and SM3 alone, {ends} x {params:.0e}: {seconds:.2f} s of CPU a round")


if __name__ == "__main__":
    main()
