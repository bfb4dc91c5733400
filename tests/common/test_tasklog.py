"""The log of each task: what belongs to it, its bounds, levels, and lines that another process forwarded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from common.log import configure
from common.tasklog import Forward, TaskLogs, bind, replay


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.contextvars.clear_contextvars()
    structlog.configure(**before)


def events(logs: TaskLogs, task: str) -> list[str]:
    return [json.loads(line)["event"] for line in logs.lines(task)]


@pytest.mark.clause("9.4.3b")
async def test_lines_of_a_task_and_of_what_it_starts_are_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = TaskLogs(tmp_path)
    configure("info", "json", first=logs, first_level="debug")

    async def work(task: str) -> None:
        bind(task)
        structlog.get_logger().info(f"{task} begins")
        async with asyncio.TaskGroup() as group:
            group.create_task(_inner())

    async def _inner() -> None:
        structlog.get_logger().debug("deep inside", size=3)

    async with asyncio.TaskGroup() as group:
        group.create_task(work("t1"))
        group.create_task(work("t2"))
    structlog.get_logger().info("of no task")
    structlog.get_logger().warning("names it itself", task="t2")
    assert events(logs, "t1") == ["t1 begins", "deep inside"]
    assert events(logs, "t2") == ["t2 begins", "deep inside", "names it itself"]
    assert [kept.task for kept in logs.all()] == ["t2", "t1"]
    shown = capsys.readouterr().err
    assert "of no task" in shown
    assert "deep inside" not in shown, "standard error keeps its own level"


def test_a_log_is_bounded_and_keeps_its_newest_lines(tmp_path: Path) -> None:
    logs = TaskLogs(tmp_path, bytes_each=4000)
    for i in range(1000):
        logs(None, "info", {"event": f"line {i}", "level": "info", "task": "t"})
    kept = events(logs, "t")
    assert kept[-1] == "line 999"
    assert kept == [f"line {i}" for i in range(1000 - len(kept), 1000)], "without a gap"
    assert 1500 < sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4000


def test_the_task_silent_for_longest_goes_first(tmp_path: Path) -> None:
    import os

    logs = TaskLogs(tmp_path, tasks=3)
    for i in range(6):
        logs(None, "info", {"event": "x", "level": "info", "task": f"t{i}"})
        os.utime(tmp_path / f"t{i}.jsonl", (i, i))
    assert [kept.task for kept in TaskLogs(tmp_path).all()] == ["t5", "t4", "t3"]


def test_levels_on_the_way_in_and_out(tmp_path: Path) -> None:
    logs = TaskLogs(tmp_path, level="info")
    for level in ("debug", "info", "warning", "error"):
        logs(None, level, {"event": level, "level": level, "task": "t"})
    assert events(logs, "t") == ["info", "warning", "error"]
    assert len(list(logs.lines("t", "error"))) == 1


@pytest.mark.parametrize("task", ["../../etc/passwd", "", "a/b", "x" * 65, "t.1"])
def test_a_name_that_is_none_touches_no_file(tmp_path: Path, task: str) -> None:
    logs = TaskLogs(tmp_path / "logs")
    logs(None, "info", {"event": "x", "level": "info", "task": task})
    assert list(logs.lines(task)) == []
    assert not logs.has(task)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    logs = TaskLogs(tmp_path / "logs")
    assert logs(None, "info", {"event": "x", "level": "info", "task": "t"})["event"] == "x"
    assert logs.lost == 1


def test_lines_of_another_process_arrive_with_their_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[dict[str, Any]] = []
    configure("info", "json", first=Forward(sent.append), first_level="debug")
    structlog.get_logger().debug("trained", task="t", loss=0.5)
    structlog.get_logger().info("of no task")
    assert [line["event"] for line in map(json.loads, capsys.readouterr().err.splitlines())] == ["of no task"]

    structlog.reset_defaults()
    logs = TaskLogs(tmp_path)
    configure("info", "json", first=logs, first_level="debug")
    replay(sent[0], worker=1)
    (line,) = map(json.loads, logs.lines("t"))
    assert (line["event"], line["level"], line["loss"], line["worker"]) == ("trained", "debug", 0.5, 1)


def test_following_a_log_misses_nothing_over_its_rotation(tmp_path: Path) -> None:
    logs = TaskLogs(tmp_path, bytes_each=2000)
    count = 0

    def write(level: str = "info") -> None:
        nonlocal count
        logs(None, level, {"event": f"line {count}", "level": level, "task": "t"})
        count += 1

    write()
    lines = logs.follow("t", "info", pause=write)
    assert [json.loads(next(lines))["event"] for _ in range(300)] == [f"line {i}" for i in range(300)]
    lines.close()  # type: ignore[attr-defined]
