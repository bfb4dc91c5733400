"""Which clause of T/SIGA 003-2024 is shown by which test.

The clauses stand in ``docs/requirements.md``; a test claims one with ``@pytest.mark.clause("9.3.1a")``. The tests are read, not run:
that they pass is the business of ``make test``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tools.errors import ToolError

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\|\s*(\d+(?:\.\d+)+[a-z0-9,–-]*|\d+\.\d+)\s*\|\s*(.*?)\s*\|")
ANNEX = "Annex B"


@dataclass(slots=True)
class Clause:
    """One row of the requirement table and the tests that claim it, as ``file::test``."""

    id: str
    text: str
    tests: list[str] = field(default_factory=list)


def table(root: Path = ROOT) -> list[Clause]:
    """All clauses in the order of the standard, each with its tests. Raises ToolError where a test names an unknown clause."""
    clauses = _clauses(root / "docs" / "requirements.md")
    by_id = {clause.id: clause for clause in clauses}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for test, ids in _claims(path):
            where = f"{path.relative_to(root)}::{test}"
            for id_ in ids:
                if id_ not in by_id:
                    raise ToolError(
                        "FF-TOOL-001",
                        f'{where} claims clause "{id_}", which docs/requirements.md does not have',
                        hint="use the ID of a row of that table; a row like 9.3.2a–c is claimed letter by letter",
                    )
                by_id[id_].tests.append(where)
    return clauses


def _clauses(path: Path) -> list[Clause]:
    if not path.is_file():
        raise ToolError(
            "FF-TOOL-002",
            f"the requirement table {path} is not there",
            hint="run this from a checkout of the project: the table and the tests are not part of an installation",
        )
    text = path.read_text()
    clauses = [
        Clause(id_, match[2]) for line in text.splitlines() if (match := ROW.match(line)) for id_ in _expand(match[1])
    ]
    annex = text.split(f"## {ANNEX}")[1].strip().split("\n\n")[0].replace("\n", " ")
    return [*clauses, Clause(ANNEX, annex)]


def _expand(id_: str) -> Iterator[str]:
    """``9.3.2a–c`` is three clauses, ``9.3.2d,g`` two."""
    stem = id_.rstrip("abcdefghijklmnopqrstuvwxyz,–-")
    letters = id_[len(stem) :]
    if match := re.fullmatch(r"([a-z])[–-]([a-z])", letters):
        yield from (f"{stem}{chr(code)}" for code in range(ord(match[1]), ord(match[2]) + 1))
    elif "," in letters:
        yield from (f"{stem}{letter}" for letter in letters.split(","))
    else:
        yield id_


def _claims(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each test function of a file with the clauses it, its class, its module or a mark it names claims."""
    named: dict[str, list[str]] = {}

    def marks(node: ast.AST) -> list[str]:
        found = []
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                found += named.get(part.id, [])
            elif isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr == "clause":
                found += [str(argument.value) for argument in part.args if isinstance(argument, ast.Constant)]
        return found

    def visit(body: list[ast.stmt], prefix: str, inherited: list[str]) -> Iterator[tuple[str, list[str]]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                own = [id_ for decorator in node.decorator_list for id_ in marks(decorator)]
                yield from visit(node.body, f"{node.name}::", inherited + own)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                own = [id_ for decorator in node.decorator_list for id_ in marks(decorator)]
                yield prefix + node.name, inherited + own

    module = ast.parse(path.read_text())
    for node in module.body:
        if isinstance(node, ast.Assign):
            named.update((target.id, marks(node.value)) for target in node.targets if isinstance(target, ast.Name))
    yield from visit(module.body, "", named.get("pytestmark", []))
