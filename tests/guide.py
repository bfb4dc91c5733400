"""Runs a page of the manual: writes its files, runs its commands, and compares what they print with what the page shows.

`python -m tests.guide docs/guide.md` runs a page and writes into it what the commands printed.

A block ```toml file=NAME is a file, ```sh a script for bash, ```text behind it what it prints. A command that ends in & goes on in the
background; the page goes on once it has printed what is shown. Digits, and the width of tables, may differ; a line "…" stands for
any lines.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.conftest import ROOT, free_port

BLOCK = re.compile(r"^```(\S+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_S = 60.0


class Step(NamedTuple):
    """A script of the page, what the page shows of its output, and what it printed."""

    script: str
    shown: str
    printed: str

    @property
    def differs(self) -> str:
        """The first line shown that was not printed; empty where all were."""
        printed = [_masked(line) for line in self.printed.splitlines()]
        at = 0
        for line in self.shown.splitlines():
            if line.strip() == "…":
                continue
            if _masked(line) not in printed[at:]:
                return line
            at = printed.index(_masked(line), at) + 1
        return ""


def run(page: Path, folder: Path, ports: Mapping[str, int]) -> list[Step]:
    """Run the page in a folder, with other ports than those it names."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    blocks = BLOCK.findall(page.read_text())
    steps = []
    background: list[subprocess.Popen[bytes]] = []
    try:
        for i, (kind, name, content) in enumerate(blocks):
            text = _replaced(content, ports)
            if name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text)
            elif kind == "sh" and text.rstrip().endswith("&"):
                background.append(_started(text.rstrip().rstrip("&"), _shown(blocks, i), folder, environment))
            elif kind == "sh":
                command = ["bash", "-euc", text]
                done = subprocess.run(
                    command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
                )
                assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
                back = {str(port): int(shown_port) for shown_port, port in ports.items()}
                steps.append(Step(text, _shown(blocks, i), _replaced(done.stdout, back)))
    finally:
        for process in background:
            process.send_signal(signal.SIGTERM)
        for process in background:
            process.wait(30)
    return steps


def _started(command: str, shown: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A command that goes on, once it has printed what is shown."""
    log = folder / f"{command.split()[1]}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=output, stderr=output
        )
    deadline = time.monotonic() + START_S
    while missing := Step(command, shown, log.read_text()).differs:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"{command} has not printed: {missing}\n{log.read_text()}"
        time.sleep(0.1)
    return process


def _shown(blocks: Sequence[tuple[str, str, str]], i: int) -> str:
    """What the page shows behind its i-th block."""
    return blocks[i + 1][2] if i + 1 < len(blocks) and blocks[i + 1][0] == "text" else ""


def _replaced(text: str, ports: Mapping[str, int]) -> str:
    for shown, port in ports.items():
        text = text.replace(f":{shown}", f":{port}")
    return text


def _masked(line: str) -> str:
    """A line without what differs from run to run: digits, signs, the widths of columns, hexadecimal names."""
    line = re.sub(r"\b[0-9a-f]{8,}\b", "#", line)
    line = re.sub(r"[-+]?\d[\d.,:e+-]*|–", "#", line)
    return re.sub(r"[\s─━┃│┏┓┗┛┡┩╇┳┻└┘┴┬┼├┤╭╮╰╯]+", " ", line).strip()


def _main(page: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        steps = iter(run(page, Path(folder), {"4840": free_port(), "8080": free_port()}))
    foreground: Step | None = None

    def filled(match: re.Match[str]) -> str:
        nonlocal foreground
        kind, name, content = match.groups()
        if kind == "sh" and not name:
            foreground = None if content.rstrip().endswith("&") else next(steps)
        if kind != "text" or foreground is None:
            return match.group(0)
        printed = "\n".join(line.rstrip() for line in foreground.printed.strip("\n").splitlines())
        return f"```text\n{printed}\n```"

    page.write_text(BLOCK.sub(filled, page.read_text()))


if __name__ == "__main__":
    _main(ROOT / sys.argv[1])
