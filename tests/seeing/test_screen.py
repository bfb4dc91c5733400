"""What `fedfab gateway status` draws, at 80 and at 140 columns."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from rich.console import Console

from cli.screen import quantile, screen, sparkline

NOW: dict[str, Any] = {
    "gateway": "gateway-a", "version": "0.1.0", "pid": 7, "started": 1000.0, "now": 5000.0,
    "configuration": {"loaded": 1000.0, "tried": 1, "refused": "FF-CONFIG-003: gateway.toml:7"},
    "clock": {"synchronised": True},
    "last_hang": {"part": "store", "doing": "append samples of press"},
    "store_trouble": None,
    "coordinator": {"url": "https://cloud.example:8443", "connected": False},
    "sources": [
        {
            "name": "press", "type": "opcua", "state": "reading", "readings": 5000, "bad": 1, "failures": 0,
            "last_data": 4_999_000_000_000, "last_error": None,
            "tags": {"good": 3, "bad": 1, "old": 0, "none": 0, "worst": ["heat (bad)"]},
        }
    ],
    "ends": [{"name": "spindle-1", "cluster": "spindles", "rows": 1234, "newest": 4_990_000_000_000}],
    "models": [{"name": "wear", "in_use": {"version": 3}, "newest": {"verdict": "promoted: better"}}],
    "inference": {"wear": {"requests": 300, "within": [("0.001", 250), ("0.01", 300), ("+Inf", 300)]}},
    "tasks": [
        {
            "task": "t1", "name": "wear", "state": "running", "reason": "", "rounds": 20,
            "groups": {"spindles": {"round": 5, "losses": [5.0, 4.0, 3.0, 2.0, 1.0]}},
        }
    ],
    "buffers": [{"name": "results", "depth": 9000, "limit": 10000, "dropped": 3, "unit": "items"}],
    "alerts": [
        {"alert": "disk-full", "severity": "critical", "labels": {}, "value": 0.95, "since": 4000.0, "message": "the disk is full"}
    ],
    "processes": [{"name": "daemon", "pid": 7, "cpu_seconds": 20.0, "memory_bytes": 140e6, "open_files": 20}],
    "box": {
        "cpus": 2, "cpu_seconds": 2000.0, "cpu_idle_seconds": 1000.0, "load": 0.5, "memory_used_ratio": 0.4,
        "disk_used_ratio": 0.95, "network_received_bytes": 3000, "network_sent_bytes": 1000,
    },
}  # fmt: skip


def drawn(now: dict[str, Any], before: dict[str, Any] | None, width: int) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(screen(now, before, width))
    return console.export_text()


def a_second_before() -> dict[str, Any]:
    before = copy.deepcopy(NOW)
    before["now"] -= 1
    before["sources"][0]["readings"] -= 500
    before["inference"]["wear"] = {"requests": 200, "within": [("0.001", 200), ("0.01", 200), ("+Inf", 200)]}
    before["processes"][0]["cpu_seconds"] -= 0.25
    before["box"] |= {"cpu_seconds": 1998.0, "cpu_idle_seconds": 999.5, "network_received_bytes": 1000}
    return before


@pytest.mark.clause("9.4.3a")
@pytest.mark.clause("9.4.3e")
@pytest.mark.parametrize("width", [80, 140])
def test_everything_is_on_the_screen_and_no_line_is_too_wide(width: int) -> None:
    text = drawn(NOW, a_second_before(), width)
    assert max(map(len, text.splitlines())) <= width
    for shown in (
        "gateway-a", "coordinator https://cloud.example:8443", "CPU 75% of 2", "memory 40%", "↓2 kB/s",
        "the changed configuration was not taken", "append samples of press", "the disk is full", "disk-full, for 17 min",
        "● reading", "500", "3/4", "heat (bad)", "spindle-1", "1,234", "5/20", "█▆▅▃▁ 1", "100", "≤1", "≤10",
        "█████████░", "25%", "140 MB",
    ):  # fmt: skip
        assert shown in " ".join(text.split()), shown


def test_without_an_earlier_answer_there_are_no_rates() -> None:
    text = drawn(NOW, None, 140)
    assert "load 0.5" in text
    assert "kB/s" not in text


def test_sparklines_and_quantiles() -> None:
    assert sparkline([1, 8, 4]) == "▁█▄"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(range(100))) == 24
    assert quantile([("0.1", 0), ("1", 99), ("+Inf", 100)], 0.5) == 1.0
    assert quantile([("0.1", 0), ("+Inf", 0)], 0.5) is None
