"""Every direct dependency is pinned exactly and has a line in docs/dependencies.md."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[\[<>=!~ ]", requirement, maxsplit=1)[0] for requirement in requirements]


def test_every_dependency_is_explained() -> None:
    text = (ROOT / "docs/dependencies.md").read_text()
    everything = names(PROJECT["dependencies"]) + names(PROJECT["optional-dependencies"]["dev"])
    assert [name for name in everything if not re.search(rf"\b{re.escape(name)}\b", text)] == []


def test_every_dependency_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    everything = names(PROJECT["dependencies"]) + names(PROJECT["optional-dependencies"]["dev"])
    assert [name for name in everything if name.lower().replace("_", "-") not in pinned] == []
