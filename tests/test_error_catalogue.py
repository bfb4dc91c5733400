"""Every error code in the product is explained in docs/errors/, and every explained code exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("cli", "common", "connectors", "coordinator", "federation", "gateway", "models", "privacy", "tools", "trust")
CODE = re.compile(r"FF-[A-Z]+-\d{3}")


def _raised() -> set[str]:
    return {
        code
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if '"' in line
        for code in CODE.findall(line)
    }


def _explained() -> set[str]:
    pages = (ROOT / "docs/errors").glob("*.md")
    return {
        code for page in pages for code in re.findall(r"^#+ (FF-[A-Z]+-\d{3})", page.read_text(), flags=re.MULTILINE)
    }


def test_every_code_has_an_entry() -> None:
    assert sorted(_raised() - _explained()) == []


def test_no_entry_without_a_code() -> None:
    assert sorted(_explained() - _raised()) == []


def test_the_first_page_leads_to_every_code() -> None:
    rows = re.findall(
        r"^\| (`FF.*) \| .*\((errors/\w+\.md)\)", (ROOT / "docs/errors.md").read_text(), flags=re.MULTILINE
    )
    led = {(prefix, page) for prefixes, page in rows for prefix in re.findall(r"FF-[A-Z]+", prefixes)}
    there = {
        (prefix, f"errors/{page.name}")
        for page in (ROOT / "docs/errors").glob("*.md")
        for prefix in re.findall(r"^#+ (FF-[A-Z]+)-\d{3}", page.read_text(), flags=re.MULTILINE)
    }
    assert led == there
