"""Logs go to standard error, as JSON lines where a machine reads them."""

from __future__ import annotations

import json
import subprocess
import sys


def run(style: str) -> subprocess.CompletedProcess[str]:
    program = (
        f"from common import log; log.configure('info', '{style}'); import structlog; "
        "structlog.get_logger().info('source lost', source='press-1'); structlog.get_logger().debug('hidden')"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)


def test_json_lines() -> None:
    done = run("json")
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["source"], entry["level"]) == ("source lost", "press-1", "info")
    assert entry["timestamp"].endswith("Z")


def test_text_names_event_and_keys() -> None:
    assert "source lost" in (text := run("text").stderr)
    assert "source=press-1" in text
    assert "hidden" not in text
