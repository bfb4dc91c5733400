"""Each message once, however late: the guard against a model of what it promises."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trust.envelope import Header
from trust.errors import TrustError
from trust.replay import MAX_AGE_S, MAX_SKEW_S, ReplayGuard

YEAR_S = 365 * 86400.0


def header(sequence: int, time_s: float = 0.0) -> Header:
    return Header("id", "task", "kind", "gateway-a", "cloud", sequence, int(time_s * 1000), "gm")


@given(st.lists(st.tuples(st.sampled_from(["meet", "take", "restart"]), st.integers(0, 30)), max_size=80))
def test_what_was_handled_is_refused_and_what_was_not_comes_again(steps: list[tuple[str, int]]) -> None:
    guard = ReplayGuard()
    met: set[int] = set()
    taken: set[int] = set()
    for what, sequence in steps:
        if what == "restart":  # from what `take` would have saved
            guard = ReplayGuard(json.loads(json.dumps(guard.state)))
        elif what == "take" and sequence in met:
            guard.take(header(sequence))
            taken.add(sequence)
        elif what == "meet":
            good = (sequence in met and sequence not in taken) or sequence > max(met, default=-1)
            if good:
                guard.meet(header(sequence), now_s=0.0 if not met else YEAR_S)
                met.add(sequence)
            else:
                with pytest.raises(TrustError) as caught:
                    guard.meet(header(sequence), now_s=0.0)
                assert caught.value.code == "FF-TRUST-035"


@pytest.mark.parametrize(
    ("age_s", "good"),
    [(0, True), (MAX_AGE_S - 1, True), (MAX_AGE_S + 1, False), (1 - MAX_SKEW_S, True), (-1 - MAX_SKEW_S, False)],
)
def test_of_a_stranger_the_time_must_be_near(age_s: float, good: bool) -> None:
    guard = ReplayGuard()
    if good:
        guard.meet(header(1, YEAR_S), YEAR_S + age_s)
        return
    with pytest.raises(TrustError) as caught:
        guard.meet(header(1, YEAR_S), YEAR_S + age_s)
    assert caught.value.code == "FF-TRUST-034"


def test_a_sender_that_is_known_may_be_away_for_years() -> None:
    guard = ReplayGuard()
    guard.meet(header(1, 0.0), 0.0)
    guard.take(header(1))
    guard.meet(header(2, 0.0), 3 * YEAR_S)
    guard.meet(header(3, 3 * YEAR_S), 0.0)


def test_a_broken_state_is_named() -> None:
    with pytest.raises(ValueError, match="state of a replay guard"):
        ReplayGuard({"newest": "1"})
