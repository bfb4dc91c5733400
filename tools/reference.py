"""The pages of reference in ``docs/``, out of what they describe: every command and option, every option of a configuration.

``python -m tools.reference`` writes them; a test compares.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BEGIN, END = "<!-- options -->\n", "<!-- end of options -->"

_FEDFAB = ("cli.main",)
_TYPER = ("typer", "cli.main", "utils", "docs", "--name", "fedfab", "--title", "The fedfab command")

PAGES: dict[str, tuple[str, ...]] = {
    "cli.md": _TYPER,
    "configuration.md": (*_FEDFAB, "gateway", "config", "docs", "--no-sources"),
    "sources.md": (*_FEDFAB, "gateway", "config", "docs", "--no-sections"),
    "coordinator.md": (*_FEDFAB, "coordinator", "config", "docs"),
}
"""Name of each page, and the module and arguments that print what stands in it: between marks, or all of it."""


def page(file: Path) -> str:
    """What the page should be now."""
    command = [sys.executable, "-m", *PAGES[file.name]]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=file.parent.parent).stdout.strip()
    before, begin, rest = file.read_text().partition(BEGIN)
    if not begin:
        return f"{printed}\n"
    return f"{before}{BEGIN}{printed}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write all pages."""
    for name in PAGES:
        file = Path(__file__).parent.parent / "docs" / name
        file.write_text(page(file))


if __name__ == "__main__":
    main()
