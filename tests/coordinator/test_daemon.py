"""The coordinator as a process of its own: what it takes over while it runs, and how it leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.slots import Slots
from tests.conftest import ROOT
from tests.coordinator.world import Cloud
from trust import pki


class Process:
    """One coordinator, told and listened to the way systemd does it."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.folder = cloud.config.parent
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(self.folder / "notify"))
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "coordinator", "run", "-c", str(cloud.config)],
            cwd=ROOT, stderr=self.log, env={**os.environ, "NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": "8000000"},
        )  # fmt: skip

    def told(self, word: str) -> str:
        self.notices.settimeout(0.5)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                notice = self.notices.recv(4096).decode()
            except TimeoutError:
                assert self.process.poll() is None, self.words()
                continue
            if word in notice:
                return notice
        raise AssertionError(self.words())

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        self.told("RELOADING=1")
        self.told("READY=1")

    def words(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.notices.close()
        self.log.close()


@pytest.fixture
def running(cloud: Cloud) -> Iterator[Process]:
    process = Process(cloud)
    process.told("READY=1")
    yield process
    process.close()


@pytest.mark.e2e
async def test_members_that_wait_for_messages_do_not_hold_up_its_leaving(running: Process) -> None:
    async with running.cloud.plants("gateway-a", "gateway-b"):
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(running.process.wait, 20) == 0, running.words()
        assert time.monotonic() - started < 2.0


@pytest.mark.e2e
def test_a_changed_file_is_taken_over_as_far_as_it_can_be(running: Process) -> None:
    file = running.cloud.config
    good = file.read_text()
    running.told("WATCHDOG=1")
    file.write_text(good + '\n[log]\nlevel = "debug"\n[limits]\nrunning_tasks = 9\nblob_gib = 1\n')
    running.reload()
    assert "configuration loaded" in running.words()
    file.write_text(good.replace('name = "cloud"', 'name = "sky"'))
    running.reload()
    assert "FF-RELOAD-001" in running.words()
    assert "[coordinator] name cannot change" in running.words()
    file.write_text(good + "\n[limits]\nnonsense = 1\n")
    running.reload()
    assert "FF-FILE-003" in running.words()
    running.told("WATCHDOG=1")


@pytest.mark.e2e
def test_a_renewed_certificate_is_shown_and_another_key_is_refused(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    pki.init(ca, ["intl"], "Test Works")
    pki.issue(ca, pki.Request("cloud", "coordinator", "Test Works", ["127.0.0.1"]))
    running = Process(Cloud(ca, tmp_path / "cloud", "intl"))
    try:
        running.told("READY=1")
        before = _shown(running)
        pki.renew(ca, "cloud")
        assert _shown(running) == before
        running.reload()
        renewed = _shown(running)
        assert renewed != before
        pki.revoke(ca, "cloud")
        other = pki.issue(ca, pki.Request("cloud", "coordinator", "Test Works", ["127.0.0.1"]), tmp_path / "other")
        for name in ("intl.key", "intl.crt"):
            (ca / "issued" / "cloud" / name).write_bytes((other / name).read_bytes())
        running.reload()
        assert "FF-RELOAD-004" in running.words()
        assert _shown(running) == renewed
    finally:
        running.close()


def _shown(running: Process) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", running.cloud.port)) as plain, context.wrap_socket(plain) as secure:
        return str(secure.getpeercert(binary_form=True))


async def test_slots_grow_and_shrink_while_they_are_taken() -> None:
    slots, inside, most, leave = Slots(2), 0, 0, asyncio.Event()

    async def work() -> None:
        nonlocal inside, most
        async with slots:
            inside += 1
            most = max(most, inside)
            await leave.wait()
            await asyncio.sleep(0)
            inside -= 1

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(12):
            group.create_task(work())
        for _ in range(20):
            await asyncio.sleep(0)
        assert inside == 2
        await slots.apply(5)
        for _ in range(20):
            await asyncio.sleep(0)
        assert inside == 5
        await slots.apply(1)
        most = 0
        leave.set()
    assert inside == 0
    assert most <= 5
