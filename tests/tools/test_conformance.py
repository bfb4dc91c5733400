"""The conformance table reads the requirement table and the tests as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.conformance import table
from tools.errors import ToolError


def project(tmp_path: Path, test: str) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/requirements.md").write_text(
        "| ID | what |\n|---|---|\n| 5.1 | two layers | seen |\n| 9.3.2a–c | rights |\n| 9.3.2d,g | grants |\n\n"
        "## Annex B\nCross-entropy (B.1),\nAUC (B.2).\n"
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_x.py").write_text(test)
    return tmp_path


def test_ranges_and_lists_are_single_clauses(tmp_path: Path) -> None:
    ids = [clause.id for clause in table(project(tmp_path, ""))]
    assert ids == ["5.1", "9.3.2a", "9.3.2b", "9.3.2c", "9.3.2d", "9.3.2g", "Annex B"]


def test_marks_of_function_class_module_and_parameter_count(tmp_path: Path) -> None:
    source = (
        "import pytest\npytestmark = [pytest.mark.clause('5.1')]\n"
        "@pytest.mark.clause('9.3.2a')\nclass TestRights:\n"
        "    @pytest.mark.clause('9.3.2g')\n    async def test_grant(self): ...\n"
        "MYSQL = pytest.mark.clause('9.3.2b')\nSERVERS = pytest.mark.parametrize('x', [pytest.param(1, marks=MYSQL)])\n"
        "def test_plain(): ...\ndef helper(): ...\n@SERVERS\ndef test_server(x): ...\n"
    )
    tests = {clause.id: clause.tests for clause in table(project(tmp_path, source))}
    files = ["tests/test_x.py::TestRights::test_grant", "tests/test_x.py::test_plain", "tests/test_x.py::test_server"]
    assert tests["5.1"] == files
    assert tests["9.3.2a"] == tests["9.3.2g"] == ["tests/test_x.py::TestRights::test_grant"]
    assert tests["9.3.2b"] == ["tests/test_x.py::test_server"]
    assert tests["9.3.2c"] == []


def test_unknown_clause_is_refused_by_name(tmp_path: Path) -> None:
    root = project(tmp_path, "import pytest\n@pytest.mark.clause('4.2')\ndef test_x(): ...\n")
    with pytest.raises(ToolError, match=r'test_x.py::test_x claims clause "4.2"'):
        table(root)


def test_the_project_itself_claims_only_known_clauses() -> None:
    clauses = table()
    assert len(clauses) > 100
    assert len({clause.id for clause in clauses}) == len(clauses)
