"""Every command, argument and option of the command line and of the configurations is explained, and the pages are up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from coordinator.config import Config as CoordinatorConfig
from gateway import configdocs
from models.spec import TaskSpec
from tools.reference import PAGES, page

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == page(DOCS / name), "run: make docs"


def test_every_command_argument_and_option_has_a_help_text() -> None:
    text = (DOCS / "cli.md").read_text()
    entries = re.findall(r"^\* `.*$", text, flags=re.MULTILINE)
    assert len(entries) > 150
    assert [entry for entry in entries if not re.fullmatch(r"\* `[^`]+`: \S.*", entry)] == []
    commands = re.split(r"^#{2,4} (?=`fedfab)", text, flags=re.MULTILINE)[1:]
    assert [each.splitlines()[0] for each in commands if each.splitlines()[2].startswith("**Usage**")] == []


def _options(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    schema = model.model_json_schema()
    return [
        (name, option, described.get("description", ""))
        for name, section in schema.get("$defs", {}).items()
        for option, described in section.get("properties", {}).items()
    ]


@pytest.mark.parametrize("model", [CoordinatorConfig, TaskSpec])
def test_every_option_of_a_file_is_explained(model: type[BaseModel]) -> None:
    found = _options(model)
    assert len(found) > 10
    assert [f"{name}.{option}" for name, option, description in found if not description] == []


def test_every_source_and_section_is_in_the_reference() -> None:
    reference = "".join((DOCS / name).read_text() for name in ("configuration.md", "sources.md"))
    for name, section in configdocs.schema()["$defs"].items():
        for option in section.get("properties", {}):
            assert f"`{option}`" in reference or name in ("Secret", "FieldSpec"), f"{name}.{option}"
