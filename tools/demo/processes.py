"""The demo's processes: each has a name and a log; one that ends stops the demo, and none outlives it."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from tools.errors import ToolError

STOP_S = 10.0
"""How long a process may take to end after SIGTERM before it is killed."""
LAST_LINES = 15

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Child:
    """One process."""

    name: str
    log: Path
    process: asyncio.subprocess.Process


class Processes:
    """Starts processes and stops them all when the block is left, however it is left."""

    def __init__(self, folder: Path, logs: Path) -> None:
        self.children: list[Child] = []
        self._folder = folder
        self._logs = logs
        self._ended: asyncio.Queue[Child] = asyncio.Queue()
        self._watches: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.shield(self._stop())

    async def start(self, name: str, *arguments: str) -> Child:
        """Start `python -m <arguments>` to run on; what it prints goes to ``<name>.log``."""
        child = await self._spawn(name, arguments)
        self._watches.append(asyncio.create_task(self._wait(child)))
        return child

    async def run(self, name: str, *arguments: str) -> None:
        """Start a process and wait for its end. Raises ToolError FF-DEMO-001 where it fails."""
        child = await self._spawn(name, arguments)
        if await child.process.wait():
            raise ended(child)

    async def watch(self) -> NoReturn:
        """Wait until a process that should run on has ended. Raises ToolError FF-DEMO-001 with its last words."""
        raise ended(await self._ended.get())

    async def _wait(self, child: Child) -> None:
        await child.process.wait()
        self._ended.put_nowait(child)

    async def _spawn(self, name: str, arguments: Sequence[str]) -> Child:
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,  # Ctrl-C is for the demo, which then stops them in order
                preexec_fn=_die_with_the_demo,
            )
        child = Child(name, log, process)
        self.children.append(child)
        return child

    async def _stop(self) -> None:
        for child in reversed(self.children):
            with suppress(ProcessLookupError):
                child.process.terminate()
        await asyncio.gather(*map(_gone, self.children))


async def _gone(child: Child) -> None:
    """Wait until a process that was told to stop has ended, and kill it where it does not."""
    try:
        await asyncio.wait_for(child.process.wait(), STOP_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()


def ended(child: Child) -> ToolError:
    """What to say of a process that ended: its name, how, and its last lines."""
    lines = child.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
    return ToolError(
        "FF-DEMO-001",
        f"the process {child.name} ended with exit code {child.process.returncode}; its last lines:\n"
        + "\n".join(lines),
        hint=f"the whole log is {child.log}",
    )


def _die_with_the_demo() -> None:
    """Between fork and exec: even where the demo is killed, the kernel ends its processes."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
