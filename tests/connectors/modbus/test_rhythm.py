"""The grid of polls, on a clock that the test holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.modbus.rhythm import Rhythm


@given(st.lists(st.floats(0.0, 0.9), min_size=1, max_size=50))
def test_the_length_of_a_poll_adds_no_drift(lengths: list[float]) -> None:
    rhythm, now = Rhythm(1.0, 100.0), 100.0
    for turn, length in enumerate(lengths):
        now += rhythm.wait(now)
        assert now == pytest.approx(100.0 + turn)
        now += length


def test_missed_polls_are_left_out() -> None:
    rhythm = Rhythm(1.0, 0.0)
    assert rhythm.wait(0.0) == 0.0
    assert rhythm.missed == 0
    assert rhythm.wait(3.4) == 0.0  # due at 1, 2 and 3: polled once
    assert rhythm.missed == 2
    assert rhythm.wait(3.5) == pytest.approx(0.5)
    assert rhythm.wait(4.0) == pytest.approx(1.0)
    assert rhythm.missed == 0
