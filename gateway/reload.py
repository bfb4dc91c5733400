"""A changed configuration taken over while the gateway runs: what changed is told to the parts that read it, the rest is left alone.

All of a new file is in force, or none of it: a file with a mistake, an option that needs a restart, and a part that cannot go over
(an address that is taken, a certificate that does not hold) leave everything as it was, and say so.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import structlog
from pydantic import BaseModel

from common.errors import FedfabError
from common.service import notify, reloading
from gateway.config import Config
from gateway.errors import ReloadError
from gateway.inference import client

log = structlog.get_logger()

_ASK_S = 0.1
LAYOUT_VERSION = "version"
"""Says how the file is written down, not what it says."""


async def nothing(config: Config) -> None:
    """What a part does that asks `Reload.config` whenever it needs an option."""


class Part(NamedTuple):
    """A part of the daemon that takes new settings while it runs."""

    name: str
    reads: frozenset[str]
    """The options it goes by: tables of the file (``inference``), or single options of one (``inference.listen``)."""
    apply: Callable[[Config], Awaitable[None]] = nothing
    """Go over to this configuration. Raises FedfabError, and then goes on as before."""
    files: Callable[[Config], Iterable[Path]] = lambda _: ()
    """Files whose content counts as configuration, such as certificates: `apply` is called when one has changed."""


@dataclass
class Reload:
    """Takes over the file at each call of `again`, and knows how the last one went."""

    config: Config
    load: Callable[[], Config]
    parts: Sequence[Part]
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
                f"{', '.join(map(_named, fixed))} cannot change while the gateway runs; nothing was changed",
                hint="undo that in the file, or restart the gateway: systemctl restart fedfab-gateway",
            )
        stamps = self._stamped(new)
        old, done = self.config, list[Part]()
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


def demand(config: Config, *, timeout_s: float = 60.0) -> None:
    """Have the running gateway of this configuration take its file over, and wait until it has.

    Raises GatewayError FF-DAEMON-002 where none runs, ReloadError FF-RELOAD-002 where it refuses, -003 where it does not come to an end.
    """
    before = client.status(config)
    os.kill(before["pid"], signal.SIGHUP)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(_ASK_S)
        after = client.status(config)["configuration"]
        if after["tried"] > before["configuration"]["tried"]:
            if after["refused"] is not None:
                raise ReloadError("FF-RELOAD-002", f"the gateway keeps its old configuration: {after['refused']}")
            return
    raise ReloadError(
        "FF-RELOAD-003",
        f"the gateway has not said within {timeout_s:g} s whether it took the file over",
        hint="its log has more; a source that does not let go of its machine holds it up",
    )


def differences(old: Config, new: Config) -> Iterator[str]:
    """Options that are not the same, as ``table`` or, inside a table both have, ``table.option``."""
    for name, info in Config.model_fields.items():
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


def options(table: str) -> frozenset[str]:
    """Every option of one table, as `Part.reads` names them."""
    section = type(Config.model_fields[table].get_default(call_default_factory=True))
    return frozenset(f"{table}.{about.alias or name}" for name, about in section.model_fields.items())


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _reads(part: Part, option: str) -> bool:
    return option in part.reads or option.partition(".")[0] in part.reads


def _named(option: str) -> str:
    table, _, name = option.partition(".")
    return f"[{table}] {name}".rstrip()
