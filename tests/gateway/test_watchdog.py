"""The real daemon with a part of it that really hangs: it says which, ends itself, and tells at the next start."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.service import Exit
from common.watchdog import RECORD, TOLD
from tests.gateway.running import Daemon

pytestmark = pytest.mark.e2e


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.kill()


def test_a_store_that_blocks_ends_the_daemon_and_the_next_start_says_why(daemon: Daemon) -> None:
    daemon.plant.write(rows=20)
    daemon.start(WATCHDOG_USEC="4000000")
    daemon.wait_for_rows(15)
    for _ in range(12):
        daemon.told("WATCHDOG=1", seconds=2)  # more than its deadline with nothing to do

    with closing(sqlite3.connect(daemon.folder / "data" / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # another program holds the file
        daemon.plant.write(rows=20)
        assert "store hangs since" in daemon.told("STATUS=", seconds=20)
        assert daemon.process is not None
        assert daemon.process.wait(20) == Exit.HUNG
    record = (daemon.folder / "data" / RECORD).read_text()
    assert record.startswith("part: store\ndoing: append samples of press")
    assert "append_raw" in record
    assert "part hangs" in daemon.words()

    daemon.start()
    status = daemon.status()
    assert (status["last_hang"]["part"], (daemon.folder / "data" / TOLD).exists()) == ("store", True)
    assert "the process before this one hung" in daemon.words()
    daemon.wait_for_rows(35)  # what could not be stored then is there now
    assert daemon.stop() == 0, daemon.words()


def test_an_event_loop_that_blocks_ends_the_daemon(daemon: Daemon) -> None:
    """Reading a secret is meant for files, and a file that never ends blocks the loop: a reload walks into it."""
    secret = daemon.folder / "mes.secret"
    secret.write_text("0123456789" * 4)
    secret.chmod(0o600)
    daemon.edit("[inference]", "[service]\nwatchdog_s = 3.0\n[inference]")
    daemon.edit("[[source]]", f'[[inference.client]]\nname = "mes"\nsecret = {{ file = "{secret}" }}\n[[source]]')
    daemon.start()
    daemon.told("WATCHDOG=1", seconds=5)
    secret.unlink()
    os.mkfifo(secret, 0o600)
    daemon.edit('name = "mes"', 'name = "erp"')
    os.kill(daemon.pid, signal.SIGHUP)
    assert daemon.process is not None
    assert daemon.process.wait(30) == Exit.HUNG
    record = (daemon.folder / "data" / RECORD).read_text()
    assert record.startswith("part: event loop\n")
    assert "secret.py" in record
