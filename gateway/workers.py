"""The daemon's side of the worker processes: a few of them, started before the first task and kept until the daemon leaves.

Torch and the rows of a data set live in there, never in the daemon. An end always goes to the same process, which keeps its data
set in memory; so a round starts no process and reads no row twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, cast

import structlog

from common.errors import FedfabError
from common.tasklog import replay
from federation.progress import reporter
from gateway import frames
from gateway.config import Config
from gateway.errors import GatewayError
from gateway.workerwatch import Limits, ReplaceError, Watch

log = structlog.get_logger()

ATTEMPTS = 3
BUFFER_BYTES = 1 << 22
STOP_S = 5.0


class Answer(NamedTuple):
    """What a worker answered: JSON values and arrays."""

    values: dict[str, Any]
    arrays: dict[str, frames.Array]


class WorkerStatus(NamedTuple):
    """How one worker is doing."""

    number: int
    pid: int | None
    """None while it does not run."""
    lost: int
    """How often it has died or been replaced since the start."""
    calls: int
    """Calls to it that are not answered yet."""


class WorkerPool:
    """Worker processes over the feature store of one gateway. Calls to one process wait for each other, first come first served.

    A process that has grown beyond ``memory_mb`` of resident memory (0: any size) is replaced between two calls, and in a call once it
    holds half as much again; one that neither says anything nor uses the processor for ``hang_s`` seconds is replaced at once. What it
    logs is at least of ``level``, in ``style``.
    """

    def __init__(
        self,
        store: Path,
        processes: int,
        *,
        memory_mb: int = 0,
        hang_s: float = 300.0,
        level: Literal["debug", "info", "warning", "error"] = "info",
        style: Literal["text", "json"] = "text",
    ) -> None:
        limits = Limits(memory_mb << 20, hang_s)
        self._workers = [_Worker(number, limits, (str(store), level, style)) for number in range(processes)]
        self._home: dict[str, _Worker] = {}

    @classmethod
    def of(cls, config: Config) -> Self:
        """The pool that a gateway of this configuration has."""
        return cls(
            config.gateway.store,
            config.workers.processes,
            memory_mb=config.workers.memory_mb,
            hang_s=config.workers.hang_s,
            level=config.log.level,
            style=config.log.format,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def start(self) -> None:
        """Start the processes that do not run yet and wait until they are ready. Called before a task, never in a round."""
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def call(
        self, op: str, values: Mapping[str, object], arrays: Mapping[str, frames.Array] | None = None, *, home: str
    ) -> Answer:
        """Let the process that is home to ``home`` (an end, a model) do one thing of `gateway.worker`.

        A process that dies is started again and asked once more, since all calls are idempotent. Raises the error that the worker
        reported, or GatewayError FF-WORKER-001 when it died three times.
        """
        worker = self._home.setdefault(home, self._workers[len(self._home) % len(self._workers)])
        return await worker.call({**values, "op": op}, arrays or {})

    async def forget(self, task: str) -> None:
        """Let all processes drop the data sets of a task that is over."""
        await asyncio.gather(*(w.call({"op": "forget", "task": task}, {}) for w in self._workers if w.running))

    @property
    def restarts(self) -> int:
        """How many processes have died or been replaced since the start."""
        return sum(worker.lost for worker in self._workers)

    def status(self) -> list[WorkerStatus]:
        """Every worker, whether it runs or not."""
        return [
            WorkerStatus(
                each.number,
                each.process.pid if each.process is not None and each.running else None,
                each.lost,
                len(each.waiting),
            )
            for each in self._workers
        ]

    def pids(self) -> list[int]:
        """Process ids of the workers that run, for a person's eyes."""
        return [each.pid for each in self.status() if each.pid is not None]


class _Worker:
    def __init__(self, number: int, limits: Limits, arguments: tuple[str, ...]) -> None:
        self.number = number
        self.limits = limits
        self.arguments = arguments
        self.process: Process | None = None
        self.lost = 0
        self.turn = asyncio.Lock()
        self.waiting: list[Callable[[], None]] = []

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        async with self.turn:
            await self._exchange_anew({"op": "ready"}, {})

    async def call(self, values: Mapping[str, object], arrays: Mapping[str, frames.Array]) -> Answer:
        waiting = reporter()
        self.waiting.append(waiting)
        try:
            async with self.turn:
                answer = await self._exchange_anew(values, arrays)
        finally:
            self.waiting.remove(waiting)
        error = answer.values.get("error")
        if error is not None:
            raise FedfabError(error["code"], error["message"], hint=error["hint"])
        return answer

    async def stop(self) -> None:
        process = self.process
        if process is None or not self.running:
            return
        cast("StreamWriter", process.stdin).close()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            await self._kill(process)

    async def _exchange_anew(self, values: Mapping[str, object], arrays: Mapping[str, frames.Array]) -> Answer:
        for attempt in range(1, ATTEMPTS + 1):
            process = self.process if self.process is not None and self.running else await self._spawn()
            watch = Watch(process.pid, self.limits)
            try:
                answer = await _exchange(process, values, arrays, self._tick, watch)
            except (BrokenPipeError, ConnectionResetError, asyncio.IncompleteReadError, ReplaceError) as error:
                if isinstance(error, ReplaceError):
                    await self._kill(process)
                end = str(error) if isinstance(error, ReplaceError) else _ending(await process.wait())
                self.lost += 1
                log.warning(
                    "worker died",
                    worker=self.number,
                    doing=values["op"],
                    end=values.get("end"),
                    how=end,
                    attempt=attempt,
                )
            except BaseException:
                await self._kill(process)  # its answer would be taken for that of the next call
                raise
            else:
                if watch.too_large():
                    self.lost += 1
                    log.warning("worker replaced", worker=self.number, megabytes=watch.resident() >> 20)
                    await self._kill(process)
                return answer
        raise GatewayError(
            "FF-WORKER-001",
            f'worker process {self.number} died {ATTEMPTS} times while doing "{values["op"]}" for {values.get("end") or "a model"}: {end}',
            hint="the log has what it wrote last; signal 9 mostly means that memory ran out: smaller window, network or batch",
        )

    def _tick(self) -> None:
        """Progress here is progress for all who wait their turn, too."""
        for report in self.waiting:
            report()

    async def _spawn(self) -> Process:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway.worker", *self.arguments,
            stdin=PIPE, stdout=PIPE, limit=BUFFER_BYTES,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )  # fmt: skip
        log.info("worker started", worker=self.number, pid=self.process.pid)
        return self.process

    async def _kill(self, process: Process) -> None:
        with suppress(ProcessLookupError):
            process.kill()
        await asyncio.shield(process.wait())


async def _exchange(
    process: Process,
    values: Mapping[str, object],
    arrays: Mapping[str, frames.Array],
    tick: Callable[[], None],
    watch: Watch,
) -> Answer:
    """The answer of a process that is watched meanwhile. Raises ReplaceError where it must go, OSError where it is gone."""

    async def talk() -> Answer:
        stdin, stdout = cast("StreamWriter", process.stdin), cast("StreamReader", process.stdout)
        stdin.writelines(frames.encode(values, arrays))
        await stdin.drain()
        while True:
            head, body = frames.LENGTHS.unpack(await stdout.readexactly(frames.LENGTHS.size))
            answer = Answer(*frames.decode(await stdout.readexactly(head), await stdout.readexactly(body)))
            watch.heard()
            tick()
            if "log" in answer.values:
                replay(answer.values["log"], pid=process.pid)
            elif "tick" not in answer.values:
                return answer

    talking, watching = asyncio.create_task(talk()), asyncio.create_task(watch.run(tick))
    try:
        await asyncio.wait([talking, watching], return_when=asyncio.FIRST_COMPLETED)
        return talking.result() if talking.done() else watching.result()
    finally:
        talking.cancel()
        watching.cancel()
        await asyncio.gather(talking, watching, return_exceptions=True)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
