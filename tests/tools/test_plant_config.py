"""A plant file is checked in full, every mistake with its line; ports that are taken are named."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from asyncua.client.client import Client

from common.tomlfile import FileError
from tests.tools.plants import plant, running
from tools.errors import ToolError
from tools.plant.config import load
from tools.plant.plant import run, streams, where

MACHINE = '[[machine]]\nname = "{name}"\nkind = "{kind}"\nserve = "{serve}"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[plant]\nsed = 1\n", 'plant.toml:2: [plant]: unknown option "sed" (did you mean "seed"?)'),
        (
            MACHINE.format(name="a", kind="pumpe", serve="sql"),
            "plant.toml:3: [machine 1]: \"kind\": expected 'spindle' or 'pump'",
        ),
        (MACHINE.format(name="a", kind="pump", serve="sql") * 2, "the name a is given to more than one machine"),
        (
            MACHINE.format(name="a", kind="pump", serve="sql") + "fault = [{kind = 'bad', fields = ['x']}]",
            "no field ['x']",
        ),
        ("[plant\n", "plant.toml"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plant.toml"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        load(path)
    assert said in caught.value.message


def test_every_variable_has_an_address(tmp_path: Path) -> None:
    machines = (("s", "spindle", "opcua"), ("p", "pump", "modbus"), ("q", "pump", "sql"))
    config = plant(tmp_path, "".join(MACHINE.format(name=n, kind=k, serve=s) for n, k, s in machines))
    found = {stream.config.name: dict(where(config, stream)) for stream in streams(config)}
    assert found["s"]["vibration"].endswith("ns=2;s=s.vibration")
    assert found["p"]["cycle"].endswith("unit 1 holding 2 u32")
    assert found["p"]["vibration"].endswith("unit 1 holding 4 f32")
    assert found["q"]["flow"].endswith(f"sqlite:///{tmp_path / 'historian.db'} q.flow")


@pytest.mark.parametrize("serve", ["opcua", "modbus"])
async def test_a_port_that_is_taken_is_named(tmp_path: Path, serve: str) -> None:
    config = plant(tmp_path, MACHINE.format(name="a", kind="pump", serve=serve))
    port = config.modbus.port if serve == "modbus" else int(config.opcua.endpoint.rpartition(":")[2].split("/")[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(ToolError, match=str(port)) as caught:
            await run(config)
    assert caught.value.code == "FF-PLANT-002"


async def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_text('[sql]\nurl = "sqlite:///no/such/folder.db"\n' + MACHINE.format(name="a", kind="pump", serve="sql"))
    with pytest.raises(ToolError) as caught:
        await run(load(path))
    assert caught.value.code == "FF-PLANT-003"


async def test_as_many_filler_tags_as_asked_for_all_changing(tmp_path: Path) -> None:
    async with running(plant(tmp_path, "").having(filler_tags=500)) as config, Client(config.opcua.endpoint) as client:
        filler = await client.nodes.objects.get_child("2:Filler")
        tags = await filler.get_children()
        assert len(tags) == 500
        first = await client.read_values(tags)
        changed: set[int] = set()
        while len(changed) < 500:
            changed |= {n for n, value in enumerate(await client.read_values(tags)) if value != first[n]}
