"""Real processes over real lines: thin ones that lose packets, ones that are cut, clocks that are wrong, models that are large."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import ROOT, free_port, missing, need_program
from tests.federation.conftest import CLOUD
from tests.federation.test_crash import said
from trust import pki

PLANT = "10.219.7.2"
MIB = 1 << 20


@asynccontextmanager
async def process(*arguments: object, within: Sequence[str] = (), clock: str | None = None) -> AsyncIterator[Process]:
    """A process of `tests.federation.nodes`, killed at the end; its ``clock`` may be wrong, by "+5h" say."""
    command = [*within, sys.executable, "-m", "tests.federation.nodes", *map(str, arguments)]
    wrong = {"LD_PRELOAD": _faketime(), "FAKETIME": clock, "FAKETIME_DONT_FAKE_MONOTONIC": "1"} if clock else {}
    started = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE, env=os.environ | wrong)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def _faketime() -> str:
    """The library that shows a process another time; its command would stand between us and the process."""
    need_program("faketime", "apt-get install faketime")
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")))


class Cable:
    """Two network namespaces and a line between them, seen nowhere else. Traffic is shaped and dropped in both directions."""

    def __init__(self) -> None:
        for program in ("ip", "tc", "nft"):
            need_program(program, "apt-get install iproute2 nftables")
        if os.geteuid() != 0:
            missing("network namespaces need root")
        self.ends = [(f"fedfab-{os.getpid()}-{i}", address) for i, address in enumerate((CLOUD, PLANT))]

    def __enter__(self) -> Cable:
        (cloud, _), (plant, _) = self.ends
        for name, _ in self.ends:
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", "line", "netns", cloud, "type", "veth", "peer", "name", "line", "netns", plant)
        for name, address in self.ends:
            self.inside(name, "ip", "address", "add", f"{address}/24", "dev", "line")
            self.inside(name, "ip", "link", "set", "line", "up")
            self.inside(name, "ip", "link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name, _ in self.ends:
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def at(self, end: int) -> Sequence[str]:
        """What a command begins with to run at the cloud's end (0) or the plant's (1)."""
        return ["ip", "netns", "exec", self.ends[end][0]]

    def thin(self, kbit_s: int) -> None:
        for name, _ in self.ends:
            shape = ["rate", f"{kbit_s}kbit", "burst", "16kb", "latency", "300ms"]
            self.inside(name, "tc", "qdisc", "replace", "dev", "line", "root", "tbf", *shape)

    def drop(self, some: str = "") -> None:
        """Drop what arrives on either side: all, or what matches (nft(8))."""
        for name, _ in self.ends:
            chain = f'chain arriving {{ type filter hook input priority 0; iifname "line" {some} drop; }}'
            self.inside(name, "nft", f"table inet line {{ {chain}; }}")

    def mend(self) -> None:
        for name, _ in self.ends:
            self.inside(name, "nft", "delete table inet line")

    def inside(self, name: str, *command: str) -> None:
        _run("ip", "netns", "exec", name, *command)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


@pytest.fixture
def cable() -> Iterator[Cable]:
    with Cable() as line:
        yield line


@pytest.mark.e2e
@pytest.mark.server("netns")
async def test_a_model_and_its_update_pass_a_thin_line_that_loses_packets(
    cable: Cable, ca: Path, tmp_path: Path
) -> None:
    """512 kbit/s and 5 % loss: 0.5 MB each way take longer than the deadline, which bytes under way put off."""
    cable.thin(512)
    cable.drop("numgen random mod 100 < 5")
    url, begun = f"https://{CLOUD}:8443", time.monotonic()
    async with process("ask", tmp_path, ca, url, 125_000, 12, within=cable.at(0)) as cloud:
        await said(cloud, "listening")
        async with process("learn", tmp_path, ca, url, within=cable.at(1)):
            await said(cloud, "learned")
    assert time.monotonic() - begun > 2 * 500_000 * 8 / 512_000 * 0.9  # the line was as thin as it should be


@pytest.mark.e2e
@pytest.mark.server("netns")
@pytest.mark.clause("9.4.3l")
async def test_a_cut_network_holds_up_messages_and_doubles_none(cable: Cable, ca: Path, tmp_path: Path) -> None:
    """Not a packet passes for a while, and nobody is told: what is said meanwhile waits, and arrives once, in order."""
    url = f"https://{CLOUD}:8443"
    async with (
        process("serve", tmp_path, ca, url, within=cable.at(0)) as cloud,
        process("report", tmp_path, ca, url, 8, 20_000, within=cable.at(1)) as plant,
    ):
        await said(plant, "sent 1")
        cable.drop()
        await said(plant, "sent 6")
        await asyncio.sleep(15)
        cable.mend()
        await said(plant, "answered 7")
        assert cloud.stdout is not None
        assert await plant.wait() == 0
        cloud.kill()
        lines = (await cloud.stdout.read()).decode().split("\n")
    assert [line for line in lines if line.startswith("got")] == [f"got {number}" for number in range(8)]


@pytest.mark.e2e
@pytest.mark.server("faketime")
@pytest.mark.parametrize(
    ("who", "offset", "skew"), [("plant", "-9h", -32400), ("plant", "+30h", 108000), ("cloud", "+5h", -18000)]
)
async def test_a_clock_that_is_hours_wrong_loses_nothing(
    ca: Path, tmp_path: Path, who: str, offset: str, skew: int
) -> None:
    """Of the member or of the aggregator: messages go by the aggregator's clock, whatever it shows."""
    old = tmp_path / "ca"  # certificates from long before
    pki.init(old, ["intl"], "Test Works", now=datetime.now(UTC) - timedelta(days=30))
    for name, role in (("cloud", "coordinator"), ("gateway-a", "gateway")):
        request = pki.Request(name, role, "Test Works", ["127.0.0.1"])  # type: ignore[arg-type]
        pki.issue(old, request, now=datetime.now(UTC) - timedelta(days=30))
    url = f"https://127.0.0.1:{free_port()}"
    async with process("serve", tmp_path, old, url, clock=offset if who == "cloud" else None) as cloud:
        await said(cloud, "listening")
        async with process("report", tmp_path, old, url, 2, 20_000, clock=offset if who == "plant" else None) as plant:
            await said(plant, "answered 1")
            assert plant.stdout is not None
            line = (await plant.stdout.readline()).decode().split()
            assert line[0] == "skew"
            assert abs(int(line[1]) - skew) <= 2


@pytest.mark.e2e
async def test_a_large_model_passes_in_little_memory(ca: Path, tmp_path: Path) -> None:
    """256 MiB from one member to another: beside the parameters themselves nobody's memory grows with them."""
    url = f"https://127.0.0.1:{free_port()}"
    async with process("relay", tmp_path, ca, url) as cloud:
        await said(cloud, "listening")
        async with process("take", tmp_path, ca, url, 256) as taker, process("give", tmp_path, ca, url, 256) as giver:
            grown = {name: await peak(one) for name, one in (("giver", giver), ("taker", taker))}
        assert cloud.stdin is not None
        cloud.stdin.write(b"\n")
        grown["cloud"] = await peak(cloud)
    assert {name: size for name, size in grown.items() if size > 100 * MIB} == {}


async def peak(one: Process) -> int:
    assert one.stdout is not None
    async with asyncio.timeout(120):
        while not (line := (await one.stdout.readline()).decode()).startswith("peak"):
            assert line, "the process has ended"
    return int(line.split()[1])
