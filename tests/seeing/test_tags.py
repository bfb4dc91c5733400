"""The state of every tag, kept for each batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.contract import Quality, Sample
from connectors.samples import SampleBlock
from gateway.tags import Tags

SECOND = 1_000_000_000
NAMES = ("a", "b", "c", "d")


def block(*samples: tuple[str, Quality, float]) -> SampleBlock:
    return SampleBlock.of(
        [Sample(tag, 1.0, quality, round(at * SECOND), round(at * SECOND)) for tag, quality, at in samples]
    )


@pytest.mark.clause("9.4.3a")
def test_a_tag_is_bad_when_its_last_value_was_bad_or_is_too_old_or_never_came() -> None:
    tags = Tags(NAMES)
    tags.note(block(("a", Quality.GOOD, 100), ("b", Quality.BAD, 100), ("c", Quality.GOOD, 1)))
    assert tags.states(101 * SECOND, 60) == {"good": ["a"], "bad": ["b"], "old": ["c"], "none": ["d"]}
    assert tags.states(101 * SECOND, 0) == {"good": ["a", "c"], "bad": ["b"], "old": [], "none": ["d"]}
    tags.note(block(("b", Quality.GOOD, 101), ("a", Quality.GOOD, 101), ("a", Quality.BAD, 102)))
    assert tags.states(102 * SECOND, 60)["bad"] == ["a"], "of several values of one batch the last counts"


def test_a_tag_that_is_not_configured_changes_nothing() -> None:
    tags = Tags(NAMES)
    tags.note(block(("stranger", Quality.GOOD, 1), ("a", Quality.GOOD, 1)))
    assert tags.states(2 * SECOND, 60) == {"good": ["a"], "bad": [], "old": [], "none": ["b", "c", "d"]}


@given(st.lists(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(Quality)), min_size=1), max_size=8))
def test_it_agrees_with_the_plain_way(batches: list[list[tuple[str, Quality]]]) -> None:
    tags, plain = Tags(NAMES), dict[str, Quality]()
    for i, batch in enumerate(batches):
        tags.note(block(*((tag, quality, i + 1) for tag, quality in batch)))
        plain |= dict(batch)
    found = tags.states((len(batches) + 1) * SECOND, 1000)
    assert found["bad"] == [name for name in NAMES if plain.get(name) == Quality.BAD]
    assert found["none"] == [name for name in NAMES if name not in plain]
