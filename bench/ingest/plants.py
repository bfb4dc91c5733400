"""Configurations of made-up plants: N tags of one source, and if wanted ends that make features of them."""

from __future__ import annotations

from pathlib import Path

FIELDS = 10
"""Tags that one end reads."""


def opcua(folder: Path, endpoint: str, tags: int, *, ends: int = 0) -> Path:
    """A gateway that follows Tag0, Tag1, ... of a server; each change counts."""
    source = f'name = "plant"\ntype = "opcua"\nendpoint = "{endpoint}"\nsampling_s = 0.0\n'
    return _write(folder, source, [f'node = "ns=2;s=Press.Tag{i}"' for i in range(tags)], ends)


def modbus(folder: Path, port: int, registers: int, every_s: float, *, ends: int = 0) -> Path:
    """A gateway that polls the registers 0, 1, ... of four units, 4,096 at most in each."""
    source = f'name = "plant"\ntype = "modbus"\nhost = "127.0.0.1"\nport = {port}\nevery_s = {every_s}\n'
    places = [f"address = {i % 4096}\nunit_id = {1 + i // 4096}" for i in range(registers)]
    return _write(folder, source, places, ends)


def idle(folder: Path) -> Path:
    """A gateway that reads nothing."""
    return _write(folder, "", [], 0)


def _write(folder: Path, source: str, places: list[str], ends: int) -> Path:
    text = '[gateway]\nname = "bench"\n\n[inference]\nlisten = "127.0.0.1:0"\n\n'
    if source:
        text += f"[[source]]\n{source}\n"
    text += "".join(f'[[source.tag]]\nname = "t{i}"\n{place}\n' for i, place in enumerate(places))
    if ends:
        text += '\n[[cluster]]\nname = "machines"\nrows = { every_s = 1.0 }\nlabel = { field = "f0" }\n'
        text += "".join(
            f'[[cluster.field]]\nname = "f{i}"\nrole = "{"aux" if i == 0 else "feature"}"\nmin = -1e9\nmax = 1e9\n'
            for i in range(FIELDS)
        )
    for end in range(ends):
        tags = ", ".join(f'f{i} = "plant/t{FIELDS * end + i}"' for i in range(FIELDS))
        text += f'[[end]]\nname = "e{end}"\ncluster = "machines"\ntags = {{ {tags} }}\n'
    file = folder / "gateway.toml"
    file.write_text(text)
    return file
