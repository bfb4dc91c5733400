"""A foreign server that is told what to do by lines on its stdin, and answers on its stdout."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path


class LineServer:
    """One process from start to kill."""

    def __init__(self, command: Sequence[str | Path], folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.expect("ready")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, line: str) -> str:
        """Send a command; the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        return self._answer()

    def expect(self, word: str) -> None:
        """Read until the process has said ``word``; what it says before is chatter."""
        while self._answer() != word:
            pass

    def pause(self) -> None:
        """Hang: the connections stay, nothing is answered any more."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End at once, as in a power cut."""
        with self._process:
            self._process.kill()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"{self._process.args!r} has ended")
        return line.strip()
