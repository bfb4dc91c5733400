"""A clock that nobody sets, and one that jumps: said once, refused never."""

from __future__ import annotations

from structlog.testing import capture_logs

from common.clock import Clock, synchronised


class Time:
    """Wall clock and time that really passes."""

    def __init__(self) -> None:
        self.wall, self.real = 1_700_000_000.0, 50.0
        self.synchronised: bool | None = False

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.real += seconds

    def clock(self) -> Clock:
        return Clock(synchronised=lambda: self.synchronised, now=lambda: self.wall, elapsed=lambda: self.real)


def test_said_once_when_not_synchronised_and_once_when_it_is() -> None:
    time = Time()
    clock = time.clock()
    with capture_logs() as logs:
        for state in (False, False, True, True, False):
            time.synchronised = state
            time.passes(10)
            clock.look()
    assert [entry["event"] for entry in logs] == [
        "clock is not synchronised",
        "clock is synchronised",
        "clock is not synchronised",
    ]
    assert clock.status() == {"synchronised": False, "jumps": 0, "last_jump_s": 0.0}


def test_a_jump_is_told_from_a_slow_correction_and_from_a_box_that_slept() -> None:
    time = Time()
    clock = time.clock()
    with capture_logs() as logs:
        for _ in range(100):
            time.passes(10)
            time.wall += 0.005  # a time server slews
            clock.look()
        time.passes(8 * 3600)
        clock.look()
        assert clock.jumps == 0
        time.passes(10)
        time.wall -= 3600
        clock.look()
        time.passes(10)
        clock.look()
    jumps = [entry for entry in logs if entry["event"] == "clock jumped"]
    assert [(entry["by_s"], entry["back"]) for entry in jumps] == [(-3600.0, True)]
    assert clock.status()["jumps"] == 1


def test_a_system_that_does_not_tell_is_not_blamed() -> None:
    time = Time()
    time.synchronised = None
    with capture_logs() as logs:
        time.clock().look()
    assert logs == []


def test_this_system_answers() -> None:
    assert synchronised() in (True, False, None)
