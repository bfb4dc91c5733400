"""Parts that hang, parts that only rest, and a loop that cannot speak for itself any more."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common.service import Exit
from common.watchdog import RECORD, TOLD, Pulse, Watchdog, deadline_s, last_hang

DEADLINE_S = 0.4


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def notices(systemd: socket.socket) -> list[str]:
    """What it was told and has not read yet."""
    found = []
    systemd.setblocking(False)
    while True:
        try:
            found.append(systemd.recv(1000).decode())
        except BlockingIOError:
            return found


class Leaving:
    """Takes the place of the process's end."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.left = threading.Event()

    def __call__(self, status: int) -> None:
        self.status = status
        self.left.set()


async def test_a_part_without_work_is_well_however_long(tmp_path: Path, systemd: socket.socket) -> None:
    leaving, part = Leaving(), Pulse("store")
    with part.work("one thing"):
        pass
    with Watchdog(DEADLINE_S, tmp_path, leaving) as watchdog:
        watchdog.watch(part)
        for _ in range(12):
            assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
    assert leaving.status is None
    assert not (tmp_path / RECORD).exists()


async def test_work_that_gets_on_is_well_however_long_it_takes(tmp_path: Path, systemd: socket.socket) -> None:
    """Many small steps, and overlapping work of which some gets done: both is progress."""
    leaving, part = Leaving(), Pulse("features")
    with Watchdog(DEADLINE_S, tmp_path, leaving) as watchdog, part.work("a long catching up"):
        watchdog.watch(part)
        for step in range(12):
            assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
            if step % 2:
                part.beat()
            else:
                with part.work("a page"):
                    pass
    assert leaving.status is None


async def test_a_part_that_hangs_is_named_before_the_end(tmp_path: Path, systemd: socket.socket) -> None:
    leaving, well, hanging, held = Leaving(), Pulse("results"), Pulse("store"), threading.Lock()
    held.acquire()

    def blocked_in_the_disk() -> None:
        with held:
            pass

    append = hanging.during("append samples of press", blocked_in_the_disk)
    thread = threading.Thread(target=append)
    with capture_logs() as logs, Watchdog(DEADLINE_S, tmp_path, leaving) as watchdog:
        watchdog.watch(well, hanging)
        thread.start()
        assert await asyncio.to_thread(leaving.left.wait, 10)
        record = (tmp_path / RECORD).read_text()
        held.release()
    thread.join()
    assert leaving.status == Exit.HUNG == 70
    assert record.startswith("part: store\ndoing: append samples of press\nsince: ")
    assert "blocked_in_the_disk" in record, "the stack of the thread that hangs"
    assert "test_a_part_that_hangs_is_named_before_the_end" in record, "the tasks of the loop"
    (told,) = (entry for entry in logs if entry["event"] == "part hangs")
    assert (told["part"], told["doing"]) == ("store", "append samples of press")
    assert any(notice.startswith("STATUS=store hangs since ") for notice in notices(systemd))


async def test_a_part_that_moves_again_is_forgiven(tmp_path: Path, systemd: socket.socket) -> None:
    leaving, part = Leaving(), Pulse("store")
    with capture_logs() as logs, Watchdog(4 * DEADLINE_S, tmp_path, leaving) as watchdog:
        watchdog.watch(part)
        done = part.begin("a slow disk")
        while not (await asyncio.to_thread(systemd.recv, 1000)).startswith(b"STATUS=store hangs"):
            pass
        done()
        while await asyncio.to_thread(systemd.recv, 100) != b"WATCHDOG=1":
            pass
    assert leaving.status is None
    assert [entry["event"] for entry in logs] == ["part hangs", "part moves again"]


async def test_a_blocked_event_loop_is_seen_from_outside(tmp_path: Path) -> None:
    leaving = Leaving()
    with capture_logs(), Watchdog(DEADLINE_S, tmp_path, leaving):
        await asyncio.sleep(0)
        deadline = time.monotonic() + 10
        while not leaving.left.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251 - this is the defect
    assert leaving.status == Exit.HUNG
    record = (tmp_path / RECORD).read_text()
    assert record.startswith("part: event loop\n")
    assert "test_a_blocked_event_loop_is_seen_from_outside" in record


async def test_a_part_may_be_allowed_more(tmp_path: Path, systemd: socket.socket) -> None:
    leaving, part = Leaving(), Pulse("federation", allow_s=60)
    with Watchdog(DEADLINE_S, tmp_path, leaving) as watchdog, part.work("wait for messages"):
        watchdog.watch(part)
        for _ in range(12):
            assert await asyncio.to_thread(systemd.recv, 100) == b"WATCHDOG=1"
    assert leaving.status is None


def test_the_next_start_tells_once_and_remembers(tmp_path: Path) -> None:
    assert last_hang(tmp_path) is None
    (tmp_path / RECORD).write_text("part: store\ndoing: append samples\nsince: 2026-01-01\npid: 7\n\nstacks: many\n")
    with capture_logs() as logs:
        first, second = last_hang(tmp_path), last_hang(tmp_path)
    assert first == second == {"part": "store", "doing": "append samples", "since": "2026-01-01", "pid": "7"}
    assert len(logs) == 1
    assert (tmp_path / TOLD).read_text().endswith("stacks: many\n")


def test_how_long_a_part_may_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert (deadline_s(None), deadline_s(7.0)) == (float("inf"), 7.0)
    monkeypatch.setenv("WATCHDOG_USEC", "5000000")
    assert (deadline_s(None), deadline_s(7.0), deadline_s(3.0)) == (5.0, 5.0, 3.0)
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert deadline_s(None) == float("inf"), "meant for another process"
