"""A plant inside a test: the real servers on free ports, for as long as a block lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conftest import free_port
from tools.plant.config import PlantConfig, load
from tools.plant.plant import run


def plant(folder: Path, machines: str, *, head: str = "tick_s = 0.01\nseed = 4") -> PlantConfig:
    """A plant read from a file in ``folder``, with free ports."""
    path = folder / "plant.toml"
    path.write_text(
        f'[plant]\n{head}\n[opcua]\nendpoint = "opc.tcp://127.0.0.1:{free_port()}/plant"\n'
        f'[modbus]\nport = {free_port()}\n[sql]\nurl = "sqlite:///historian.db"\n{machines}'
    )
    return load(path)


@asynccontextmanager
async def running(config: PlantConfig) -> AsyncIterator[PlantConfig]:
    """This plant, its servers listening."""
    up = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        plant = group.create_task(run(config, lambda _: up.set()))
        await up.wait()
        try:
            yield config
        finally:
            plant.cancel()
