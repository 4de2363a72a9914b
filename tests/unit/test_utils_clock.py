"""The manual clock moves when told; the system's clock is the system's."""

from __future__ import annotations

import time

import pytest
from flotilla.utils.clock import Clock, ManualClock, SystemClock


def test_a_manual_clock_stands_still() -> None:
    clock = ManualClock(start_s=10.0)
    assert [clock.now_s(), clock.now_s()] == [10.0, 10.0]
    assert clock.wall_s() == clock.wall_s()


def test_both_of_its_times_advance_together() -> None:
    clock = ManualClock(start_s=10.0)
    wall_s = clock.wall_s()
    clock.advance(2.5)
    clock.advance(0.0)
    assert clock.now_s() == 12.5
    assert clock.wall_s() - wall_s == pytest.approx(2.5)


def test_time_does_not_run_backwards() -> None:
    clock = ManualClock(start_s=10.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-0.001)
    assert clock.now_s() == 10.0


def test_the_system_clock_is_monotonic_and_on_the_wall() -> None:
    clock = SystemClock()
    before_s, before_wall_s = time.monotonic(), time.time()
    assert before_s <= clock.now_s() <= clock.now_s() <= time.monotonic()
    assert before_wall_s - 1.0 <= clock.wall_s() <= time.time() + 1.0


@pytest.mark.parametrize("clock", [ManualClock(), SystemClock()], ids=["manual", "system"])
def test_both_tell_seconds_since_1970_on_the_wall(clock: Clock) -> None:
    year_2020_s, year_2100_s = 1_577_836_800.0, 4_102_444_800.0
    assert year_2020_s < clock.wall_s() < year_2100_s
