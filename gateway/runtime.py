"""Drives every source into the store and the store's raw layer into features, each under its own supervision.

For each source one task: start → read → store → acknowledge, and again; after a failure stop, wait, start behind the stored cursor. The
first failure and the recovery are logged, not every attempt. One more task prepares features whenever raw samples have come in.

A store that cannot be written is no failure of a source: it keeps its connection and its batch, and waits.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import structlog

from common.errors import FedfabError
from common.watchdog import Pulse
from connectors import registry
from connectors.contract import Batch, Connector, SourceConfig
from connectors.errors import ConnectorConfigError
from connectors.samples import SampleBlock
from gateway.config import Config
from gateway.errors import StoreError
from gateway.preparation import Preparation
from gateway.store import Store
from gateway.store.together import Together
from gateway.tags import Tags

_GATHER_S = 0.5
"""How long samples wait at most for others before features are made of them: four times as long as that took the last time."""

log = structlog.get_logger(__name__)

State = Literal["starting", "reading", "retrying", "refused", "stopped"]


@dataclass(slots=True)
class SourceStatus:
    """How one source is doing, since the gateway started."""

    name: str
    type: str
    state: State = "starting"
    """reading: data has come since the last start. refused: its configuration cannot work, so it is not tried again."""
    readings: int = 0
    bad: int = 0
    """Readings of bad quality."""
    overruns: int = 0
    """Readings that were due and could not be taken in time: device, network or gateway was too slow."""
    last_data: int | None = None
    """When the newest batch arrived, ns since the epoch; judge by this whether data still flows."""
    failures: int = 0
    """Failures since the last data; 0 is well."""
    reconnects: int = 0
    """Recoveries since the gateway started."""
    last_error: str | None = None
    """The newest failure, kept after the recovery."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt: doubled each time, with jitter so that sources do not come all at once."""

    first_s: float = 1.0
    most_s: float = 60.0

    def delay_s(self, failures: int, chance: random.Random) -> float:
        """Seconds before attempt number ``failures`` + 1."""
        return chance.uniform(0.5, 1.0) * min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))


_LET_GO_S = 10.0
_DISK = Backoff(first_s=0.5, most_s=10.0)


class Runtime:
    """All sources and the preparation of features of one gateway. ``create``, ``sleep`` and ``now`` are for tests."""

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        backoff: Backoff | None = None,
        create: Callable[[SourceConfig], Connector] = lambda source: registry.get(source.type).create(source),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._config = config
        self._store = store
        self._backoff = backoff or Backoff()
        self._create = create
        self._sleep = sleep
        self._now = now
        self._chance = random.Random()  # noqa: S311 - jitter needs no secrecy
        self._preparation: Preparation | None = None
        self._arrived = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, "store")
        self._together = Together(store, self._writer)
        self._preparer = ThreadPoolExecutor(1, "features")
        self._group: asyncio.TaskGroup | None = None
        self._driving: dict[str, asyncio.Task[None]] = {}
        self.sources: dict[str, SourceStatus] = {}
        self.tags: dict[str, Tags] = {}
        """The state of every tag, by source."""
        self._list_sources()
        self.store_trouble: str | None = None
        """Why nothing can be stored at present; None while it can."""
        self.storing = Pulse("store")
        self.preparing = Pulse("features")

    async def run(self) -> None:
        """Work until cancelled; then stop every source, bring the features up to the raw layer and keep their state."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for source in self._config.sources:
                    if source.enabled:
                        self._start(source)
                self._group.create_task(self._prepare(), name="features")
        finally:
            self._group = None
            await asyncio.shield(asyncio.to_thread(self._flush))

    async def apply(self, config: Config) -> None:
        """Go over to another configuration: only sources that are new, gone or changed are touched.

        Where clusters, ends or units changed, the features of the ends concerned are made again from the raw layer.
        """
        old, self._config = self._config, config
        before = {source.name: source for source in old.sources if source.enabled}
        after = {source.name: source for source in config.sources if source.enabled}
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        leaving = [task for name in changed if (task := self._driving.pop(name, None))]
        for task in leaving:
            task.cancel()
        if leaving:
            _, stuck = await asyncio.wait(leaving, timeout=_LET_GO_S)
            for task in stuck:
                log.warning("source does not let go of its machine, going on without waiting", task=task.get_name())
        self._list_sources()
        for name in changed & after.keys():
            self._start(after[name])
        if _recipes(old) != _recipes(config):
            await asyncio.get_running_loop().run_in_executor(self._preparer, self._prepare_anew)
            self._arrived.set()

    def status(self) -> dict[str, Any]:
        """For the daemon's status: each source, and what cleaning rejected, field by field. JSON-serialisable."""
        preparation = self._preparation
        return {
            "sources": [asdict(status) for status in self.sources.values()],
            "rejected": self.rejected(),
            "damaged_blocks": preparation.damaged if preparation else 0,
            "store_trouble": self.store_trouble,
        }

    def rejected(self) -> dict[str, dict[str, dict[str, int]]]:
        """For each end and field, how many samples came and how many each cleaning rule rejected."""
        preparation = self._preparation
        return preparation.counts() if preparation else {}

    def _list_sources(self) -> None:
        """One status for each source that is read, in the order of the file; one that was there before goes on counting."""
        enabled = [source for source in self._config.sources if source.enabled]
        self.sources = {
            source.name: self.sources.get(source.name) or SourceStatus(source.name, source.type) for source in enabled
        }
        before, self.tags = self.tags, {}
        for source in enabled:
            tags, names = before.get(source.name), source.tag_names()
            self.tags[source.name] = tags if tags is not None and tags.names == names else Tags(names)

    def _start(self, source: SourceConfig) -> None:
        if self._group is None:
            return  # not running yet, or not any more
        status = self.sources[source.name]
        status.type, status.state, status.failures = source.type, "starting", 0
        self._driving[source.name] = self._group.create_task(self._drive(source), name=f"source {source.name}")

    async def _drive(self, source: SourceConfig) -> None:
        status = self.sources[source.name]
        failed_at = 0
        while True:
            connector: Connector | None = None
            try:
                connector = self._create(source)
                await connector.start(self._store.cursor(source.name))
                while True:
                    batch = await connector.read()
                    block = await self._keep(source.name, batch)
                    if status.failures:
                        down_s = round((self._now() - failed_at) / 1e9, 1)
                        log.info("source recovered", source=source.name, attempts=status.failures, down_s=down_s)
                        status.reconnects += 1
                    self._note(status, block)
                    status.overruns += batch.missed
            except asyncio.CancelledError:
                status.state = "stopped"
                raise
            except ConnectorConfigError as error:
                status.state, status.failures, status.last_error = "refused", 1, str(error)
                log.error("source refused", source=source.name, code=error.code, problem=error.message, hint=error.hint)
                return
            except Exception as error:  # whatever one device or its driver does, the others go on
                if not status.failures:
                    failed_at = self._now()
                    _report(source.name, error)
                status.state, status.last_error = "retrying", str(error) or repr(error)
                status.failures += 1
            finally:
                if connector is not None:
                    await _stopped(source.name, connector)
            await self._sleep(self._backoff.delay_s(status.failures, self._chance))

    async def _keep(self, source: str, batch: Batch) -> SampleBlock:
        """Store a batch, however long that takes: a full disk costs a source neither its data nor its connection."""
        failures = 0
        while True:
            try:
                with self.storing.work(f"append samples of {source}"):
                    block = await self._together.append(source, batch.samples, batch.cursor)
                break
            except StoreError as error:
                failures += 1
                if self.store_trouble is None:
                    log.error("store cannot be written, sources wait", problem=error.message, hint=error.hint)
                self.store_trouble = str(error)
            await self._sleep(_DISK.delay_s(failures, self._chance))
        if self.store_trouble is not None:
            log.info("store can be written again")
            self.store_trouble = None
        await batch.acknowledge()
        self._arrived.set()
        return block

    def _note(self, status: SourceStatus, block: SampleBlock) -> None:
        status.state, status.failures = "reading", 0
        status.last_data = self._now()
        status.readings += len(block)
        status.bad += block.bad
        self.tags[status.name].note(block)

    async def _prepare(self) -> None:
        """Make features from what is there, then whenever something has arrived."""
        failures, took_s = 0, 0.0
        while True:
            try:
                began = time.monotonic()
                with self.preparing.work("make features of new samples"):
                    if await asyncio.get_running_loop().run_in_executor(self._preparer, self._advance):
                        took_s = time.monotonic() - began
                        continue
                if failures:
                    log.info("features recovered", attempts=failures)
                failures = 0
                await self._arrived.wait()
                await asyncio.sleep(
                    min(_GATHER_S, 4 * took_s)
                )  # a pass costs about the same for few samples as for many
                self._arrived.clear()
            except (
                Exception
            ) as error:  # a full disk, say: what could not be stored is made again from the last checkpoint
                if not failures:
                    log.error("features cannot be stored", problem=str(error))
                failures += 1
                await self._sleep(self._backoff.delay_s(failures, self._chance))

    def _advance(self) -> bool:
        if self._preparation is None:
            self._preparation = Preparation(self._config, self._store)
        try:
            return self._preparation.advance()
        except BaseException:
            self._preparation = None  # its pipelines may be ahead of the rows that are stored
            raise

    def _prepare_anew(self) -> None:
        """Let the next advance begin with the present configuration, behind the state that is kept here."""
        self._checkpoint()
        self._preparation = None

    def _flush(self) -> None:
        self._writer.shutdown(wait=True)
        self._preparer.shutdown(wait=True)
        try:
            while self._advance():
                pass
        except StoreError as error:  # no reason not to stop: the next start makes up for it
            log.error("features not brought up to date", code=error.code, problem=error.message, hint=error.hint)
        self._checkpoint()

    def _checkpoint(self) -> None:
        try:
            if self._preparation is not None:
                self._preparation.checkpoint()
        except StoreError as error:  # it only means more to catch up with
            log.warning("state of the features not kept", code=error.code, problem=error.message)


def _recipes(config: Config) -> object:
    """What the features depend on."""
    units = {f"{source.name}/{tag}": unit for source in config.sources for tag, unit in source.tag_units().items()}
    used = sorted({tag for end in config.ends for tag in end.tags.values()})
    return config.clusters, config.ends, [units[tag] for tag in used]


def _report(source: str, error: Exception) -> None:
    if isinstance(error, FedfabError):
        log.warning("source failed", source=source, code=error.code, problem=error.message, hint=error.hint)
    else:
        log.warning("source failed", source=source, problem=repr(error), exc_info=error)


async def _stopped(source: str, connector: Connector) -> None:
    """Stop, whatever the connector thinks of it: nothing that happens here may keep the source from being started again."""
    try:
        await connector.stop()
    except Exception as error:
        log.warning("source did not stop cleanly", source=source, problem=repr(error))
