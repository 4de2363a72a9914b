"""The simulated world of `benchmarks/scheduling.py` is right: small cases whose outcome can be told by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from flotilla.jobs.model import JobState

from benchmarks.sim_fleet import (
    MASTER,
    Crash,
    Freeze,
    Member,
    Setup,
    Stall,
    chance,
    equal_members,
    lower_bound_s,
    speeds_log_uniform,
)
from benchmarks.sim_random import random_setup
from benchmarks.sim_world import NeverEnds, Outcome, SimWorld

BASE_S = 4.0
TALK_S = 0.002 + 0.002 + 0.01 + 2 * 0.002
"""A lease goes there, the end is told, the result is asked for, comes, and is here."""


def run(*members: Member, items: int, **terms: object) -> Outcome:
    return SimWorld(Setup(members, items, base_s=BASE_S, **terms), check_every=1).run()  # type: ignore[arg-type]


class TestLowerBound:
    @pytest.mark.parametrize(
        ("speeds", "items", "bases"),
        [
            ((1.0,), 3, 3.0),
            ((1.0, 1.0), 3, 2.0),
            ((4.0, 1.0, 1.0), 24, 4.0),
            ((4.0, 1.0, 1.0), 100, 17.0),  # 68 + 17 + 17 = 102; a quarter less makes 67 + 16 + 16
            ((4.0, 1.0), 3, 0.75),
            ((1.0, 2.0), 0, 0.0),
        ],
    )
    def test_is_in_whole_items(self, speeds: tuple[float, ...], items: int, bases: float) -> None:
        members = tuple(Member(f"w{number}", speed) for number, speed in enumerate(speeds))
        assert lower_bound_s(Setup(members, items, base_s=BASE_S)) == pytest.approx(bases * BASE_S)

    @pytest.mark.parametrize(
        ("member", "items", "bound_s"),
        [
            (Member("a", joins_s=10.0), 2, 18.0),
            (Member("a", faults=(Stall(6.0, 5.0),)), 2, 13.0),
            (Member("a", faults=(Freeze(9.0, 5.0),)), 2, 8.0),
            (Member("a", faults=(Crash(6.0, back_after_s=1.0),)), 2, 11.0),
            (Member("a", faults=(Crash(6.0),)), 1, 4.0),
            (Member("a", faults=(Crash(6.0),)), 2, math.inf),
            (Member("a", faults=(Stall(6.0),)), 2, math.inf),
            (Member("a", faults=(Stall(2.0, 3.0), Crash(6.0, 2.0), Freeze(9.0, 1.0))), 1, 13.0),
        ],
    )
    def test_knows_who_is_there_when(self, member: Member, items: int, bound_s: float) -> None:
        assert lower_bound_s(Setup((member,), items, base_s=BASE_S)) == pytest.approx(bound_s)

    def test_counts_the_attempts_that_fail(self) -> None:
        setup = Setup((Member("a"),), 90, base_s=BASE_S, failures=0.1)
        assert lower_bound_s(setup) == pytest.approx(100 * BASE_S)


class TestWork:
    def test_one_after_the_other_without_waiting_between(self) -> None:
        outcome = run(Member("a"), items=3)
        assert outcome.makespan_s == pytest.approx(3 * BASE_S + TALK_S)
        assert outcome.useful_s == pytest.approx(3 * BASE_S)
        assert outcome.states == (JobState.DONE,)

    def test_with_one_slot_each_item_waits_for_its_lease(self) -> None:
        outcome = run(Member("a", slots=1), items=3)
        assert outcome.makespan_s > 3 * BASE_S + TALK_S + 0.003

    def test_speed_and_number_count(self) -> None:
        outcome = run(Member("a", speed=2.0), Member("b", speed=2.0), items=4)
        assert outcome.makespan_s == pytest.approx(BASE_S + TALK_S)
        assert outcome.taken == {"a": 2, "b": 2}

    def test_the_master_takes_one_item_at_a_time_at_no_distance(self) -> None:
        outcome = run(Member(MASTER), items=3)
        assert outcome.makespan_s == pytest.approx(3 * BASE_S)
        assert outcome.taken == {MASTER: 3}

    def test_the_first_item_after_a_start_takes_longer(self) -> None:
        member = Member("a", faults=(Crash(9.0, back_after_s=1.0),))
        setup = Setup((member,), 2, base_s=BASE_S, warm_up_s=3.0)
        assert lower_bound_s(setup) == pytest.approx(10.0 + 3.0 + BASE_S)
        assert SimWorld(setup).run().makespan_s == pytest.approx(10.0 + 3.0 + BASE_S + TALK_S)

    def test_routes_are_jobs_of_their_own(self) -> None:
        outcome = run(*equal_members(2), items=4, way="route")
        assert outcome.states == (JobState.DONE,) * 4
        assert outcome.makespan_s == pytest.approx(2 * BASE_S + TALK_S)

    def test_one_each_goes_to_whom_it_is_meant_for(self) -> None:
        outcome = run(*equal_members(3), items=3, way="one_each")
        assert outcome.taken == {"w0": 1, "w1": 1, "w2": 1}

    def test_jitter_changes_durations_within_its_bounds(self) -> None:
        outcome = run(Member("a"), items=20, jitter=0.1)
        assert outcome.makespan_s != pytest.approx(20 * BASE_S + TALK_S, abs=1e-6)
        assert 0.9 < outcome.makespan_s / (20 * BASE_S) < 1.1

    def test_nothing_is_kept_in_the_end(self) -> None:
        assert run(*equal_members(3), items=10).kept == 0


class TestFaults:
    def test_a_failed_attempt_costs_its_time(self) -> None:
        outcome = run(Member("a"), items=20, failures=0.3, max_attempts=20, progress_every_s=None)
        assert outcome.failed_s > 0.0
        assert outcome.failed_s % BASE_S == pytest.approx(0.0, abs=1e-6)
        assert outcome.makespan_s >= outcome.useful_s + outcome.failed_s
        assert outcome.useful_s == pytest.approx(20 * BASE_S)

    def test_a_crash_loses_what_was_being_done(self) -> None:
        outcome = run(Member("a", faults=(Crash(6.0, back_after_s=1.0),)), items=2)
        assert outcome.makespan_s == pytest.approx(7.0 + BASE_S + TALK_S)
        assert outcome.lost_s == pytest.approx(6.0 - 0.002 - BASE_S)
        assert outcome.vain_s == 0.0

    @pytest.mark.parametrize("fault", [Stall(1.0, 3.0), Freeze(1.0, 3.0), Freeze(1.0, 12.0)])
    def test_a_pause_loses_nothing(self, fault: Stall | Freeze) -> None:
        outcome = run(Member("a", faults=(fault,)), items=2)
        assert outcome.makespan_s == pytest.approx(2 * BASE_S + fault.for_s + TALK_S, abs=TALK_S)
        assert outcome.lost_s == 0.0
        assert outcome.vain_s < TALK_S  # a copy may have begun when the news comes that it is not needed

    def test_who_comes_late_helps(self) -> None:
        outcome = run(Member("a"), Member("b", joins_s=2.0), items=3)
        assert outcome.makespan_s == pytest.approx(2 * BASE_S + TALK_S)
        assert outcome.taken == {"a": 2, "b": 1}

    def test_what_never_ends_is_noticed(self) -> None:
        with pytest.raises(NeverEnds):
            run(Member("a", faults=(Stall(1.0),)), items=1)


class TestChance:
    def test_all_follows_from_the_setup(self) -> None:
        setup = Setup(equal_members(3), 30, jitter=0.2, failures=0.1, max_attempts=9, seed=5)
        outcomes = [SimWorld(setup).run() for _ in range(2)]
        first, second = (replace(outcome, handling_s=0.0, slowest_s=0.0) for outcome in outcomes)
        assert first == second
        other = SimWorld(replace(setup, seed=6)).run()
        assert other.makespan_s != first.makespan_s

    def test_numbers_are_the_same_everywhere_and_evenly_spread(self) -> None:
        assert chance(1, 2, 3) == chance(1, 2, 3) != chance(1, 3, 2)
        throws = [chance(7, number) for number in range(10_000)]
        assert all(0.0 <= throw < 1.0 for throw in throws)
        for tenth in range(10):
            assert sum(tenth <= throw * 10 < tenth + 1 for throw in throws) == pytest.approx(1000, abs=100)

    def test_speeds_fill_their_range(self) -> None:
        speeds = speeds_log_uniform(100, 1.0, 8.0, seed=1)
        assert min(speeds) == pytest.approx(1.0)
        assert max(speeds) == pytest.approx(8.0)
        assert sum(speed < math.sqrt(8.0) for speed in speeds) == 50
        assert speeds != sorted(speeds)


class TestFleetsByChance:
    @pytest.mark.parametrize("block", range(5))
    def test_every_job_ends_well_and_keeps_nothing(self, block: int) -> None:
        for seed in range(block * 40, block * 40 + 40):
            setup = random_setup(seed)
            outcome = SimWorld(setup, check_every=1 if setup.items <= 24 else 20).run()
            assert {state.value for state in outcome.states} == {"done"}, setup
            assert outcome.kept == 0, setup
            assert sum(outcome.taken.values()) == setup.items, setup

    def test_they_are_all_kinds_of_fleets(self) -> None:
        setups = [random_setup(seed) for seed in range(300)]
        assert {setup.way for setup in setups} == {"pull", "one_each", "route"}
        assert {len(setup.members) for setup in setups} == {1, 2, 3, 4, 6, 8}
        faults = [fault for setup in setups for member in setup.members for fault in member.faults]
        assert {type(fault) for fault in faults} == {Crash, Freeze, Stall}
        assert not any(setup.members[0].faults for setup in setups)
        assert sum(setup.members[0].id == MASTER for setup in setups) > 100
