"""The plant engineer's guide does what it shows, from the first file to the first prediction."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import guide
from tests.conftest import ROOT, free_port


@pytest.mark.e2e
def test_the_guide_leads_to_a_prediction(tmp_path: Path) -> None:
    steps = guide.run(ROOT / "docs/guide.md", tmp_path, {"4840": free_port(), "8080": free_port()})
    assert [(step.script, step.differs) for step in steps if step.differs] == []
    answer = json.loads(steps[-1].printed)
    assert 0 <= answer["outputs"][0]["data"][0] <= 150
    assert answer["parameters"]["end"] == "spindle-1"
