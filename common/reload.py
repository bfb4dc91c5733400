"""A changed configuration taken over while a daemon runs: what changed is told to the parts that read it, the rest is left alone.

All of a new file is in force, or none of it: a file with a mistake, an option that needs a restart, and a part that cannot go over
(an address that is taken, a certificate that does not hold) leave everything as it was, and say so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import structlog
from pydantic import BaseModel

from common.errors import FedfabError
from common.service import notify, reloading

log = structlog.get_logger()

LAYOUT_VERSION = "version"
"""Says how the file is written down, not what it says."""


Config = TypeVar("Config", bound=BaseModel)


class ReloadError(FedfabError):
    """A changed configuration cannot be taken over while the daemon runs; the old one stays in force."""


async def nothing(config: Any) -> None:
    """What a part does that asks `Reload.config` whenever it needs an option."""


class Part(NamedTuple, Generic[Config]):
    """A part of the daemon that takes new settings while it runs."""

    name: str
    reads: frozenset[str]
    """The options it goes by: tables of the file (``inference``), or single options of one (``inference.listen``)."""
    apply: Callable[[Config], Awaitable[None]] = nothing
    """Go over to this configuration. Raises FedfabError, and then goes on as before."""
    files: Callable[[Config], Iterable[Path]] = lambda _: ()
    """Files whose content counts as configuration, such as certificates: `apply` is called when one has changed."""


@dataclass
class Reload(Generic[Config]):
    """Takes over the file at each call of `again`, and knows how the last one went."""

    config: Config
    load: Callable[[], Config]
    parts: Sequence[Part[Config]]
    loaded: float = field(default_factory=time.time)
    """When the configuration in force was read, seconds since the epoch."""
    tried: int = 0
    refused: str | None = None
    """Why the last file was not taken; None when it was."""

    def __post_init__(self) -> None:
        self._stamps = self._stamped(self.config)

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever ``asked`` is set."""
        while True:
            await asked.wait()
            asked.clear()
            with reloading():
                await self.again()

    async def again(self) -> None:
        """Read the file and go over to it. Never raises for what a person wrote: it is logged, and in `refused`."""
        try:
            changed = await self._take_over(await asyncio.to_thread(self.load))
        except FedfabError as error:
            self.refused = str(error)
            log.error(
                "configuration refused, the old one stays", code=error.code, problem=error.message, hint=error.hint
            )
            notify(f"STATUS=configuration refused ({error.code}), the old one stays")
        else:
            self.refused, self.loaded = None, time.time()
            log.info("configuration loaded", changed=changed)
            notify("STATUS=")
        self.tried += 1

    def status(self) -> dict[str, object]:
        """For the daemon's status."""
        return {"loaded": self.loaded, "tried": self.tried, "refused": self.refused}

    async def _take_over(self, new: Config) -> list[str]:
        """The options that changed."""
        changed = sorted(differences(self.config, new))
        fixed = [option for option in changed if not any(_reads(part, option) for part in self.parts)]
        if fixed:
            raise ReloadError(
                "FF-RELOAD-001",
                f"{', '.join(map(_named, fixed))} cannot change while the daemon runs; nothing was changed",
                hint="undo that in the file, or restart the daemon: systemctl restart fedfab-gateway, or fedfab-coordinator",
            )
        stamps = self._stamped(new)
        old, done = self.config, list[Part[Config]]()
        for part in self.parts:
            if any(_reads(part, option) for option in changed) or stamps[part.name] != self._stamps[part.name]:
                try:
                    await part.apply(new)
                except FedfabError:
                    for before in reversed(done):
                        await before.apply(old)
                    raise
                done.append(part)
        self.config, self._stamps = new, stamps
        return changed

    def _stamped(self, config: Config) -> dict[str, list[object]]:
        return {part.name: [_stamp(path) for path in part.files(config)] for part in self.parts}


def differences(old: BaseModel, new: BaseModel) -> Iterator[str]:
    """Options that are not the same, as ``table`` or, inside a table both have, ``table.option``."""
    for name, info in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        table = info.alias or name
        if isinstance(before, BaseModel) and type(before) is type(after):
            for option, about in type(before).model_fields.items():
                if getattr(before, option) != getattr(after, option):
                    yield f"{table}.{about.alias or option}"
        elif table != LAYOUT_VERSION:
            yield table


def options(config: type[BaseModel], table: str) -> frozenset[str]:
    """Every option of one table, as `Part.reads` names them."""
    section = type(config.model_fields[table].get_default(call_default_factory=True))
    return frozenset(f"{table}.{about.alias or name}" for name, about in section.model_fields.items())


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _reads(part: Part[Any], option: str) -> bool:
    return option in part.reads or option.partition(".")[0] in part.reads


def _named(option: str) -> str:
    table, _, name = option.partition(".")
    return f"[{table}] {name}".rstrip()
