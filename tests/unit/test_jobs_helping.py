"""What idle participants do for others: taking over what has not begun, copies of what takes too long."""

from __future__ import annotations

from fakes.desk import BROKEN, Desk, J, end, failed, finished, lease, leases
from flotilla.jobs import events as ev
from flotilla.jobs.forecast import STALL_SILENT_S
from flotilla.jobs.instructions import FetchResult, KeepResult, ReleaseResult, StopLease
from flotilla.jobs.model import JobState

# Taking over


def test_an_idle_one_takes_over_what_has_not_begun() -> None:
    desk = Desk("a", slots=2)
    desk.pull(2, "a", "b")
    desk.begin(0, 1, "a")
    desk.at(101.0)
    assert desk.tell(ev.ParticipantOnline("b")) == []
    assert desk.at(103.0) == [StopLease("a", J, 1, 1), lease("b", 1, 2)]
    assert desk.machine.item(J, 1).participant_id == "b"  # type: ignore[union-attr]


def test_what_should_begin_any_moment_is_given_some_seconds() -> None:
    """A worker's host may be tidying up; what lies behind something else of ours is another matter."""
    desk = Desk("a", "b", slots=1)
    desk.start("a", "b", participants=("a", "b"))
    desk.work(1, 1, "b", 0.5)
    assert desk.at(104.9) == []
    assert desk.at(105.6) == [StopLease("a", J, 0, 1), lease("b", 0, 2)]


def test_what_is_begun_or_ends_sooner_where_it_is_stays() -> None:
    desk = Desk("a", "b", slots=1)
    desk.pull(2, "a", "b")
    desk.begin(0, 1, "a")
    desk.work(1, 1, "b", 1.0)
    assert desk.at(102.9) == [], "a is at work on item 0, and not for long"


def test_a_slow_one_does_not_take_over_from_a_fast_one() -> None:
    desk = Desk("fast", "slow", slots=2)
    desk.pull(8, "fast", "slow")  # fast 0, 2; slow 1, 3
    desk.begin(1, 1, "slow")
    desk.work(0, 1, "fast", 1.0)
    desk.work(2, 1, "fast", 1.0)
    desk.work(4, 1, "fast", 1.0)
    desk.at(104.0)
    desk.begin(5, 1, "fast")
    told = desk.finish(1, 1, "slow")
    assert StopLease("fast", J, 6, 1) not in told
    assert [one.participant_id for one in leases(told)] in ([], ["slow"])


def test_no_item_goes_to_and_fro() -> None:
    desk = Desk("a", "b", slots=2)
    desk.pull(1, "a", "b")
    told = desk.at(160.0)
    assert leases(told) == [lease("b", 0, 2)], "a did not begin, and is not asked again"


def test_nothing_pinned_is_taken_over_or_copied() -> None:
    desk = Desk("a", "b")
    desk.start("a", "a", participants=("a", "b"), pinned=(0, 1))
    desk.begin(0, 1, "a")
    assert desk.at(400.0) == []


def test_what_answers_an_ask_is_not_taken_over() -> None:
    desk = Desk()
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.pull(1, "m", "late", fallback="m")
    assert desk.tell(ev.ItemAsked(J, 0, "m")) == [lease("m", 0)]
    desk.tell(ev.ParticipantOnline("late"))
    assert desk.at(110.0) == []


def test_one_that_asks_takes_over_what_waits_behind_other_work() -> None:
    desk = Desk("a", slots=2)
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.pull(2, "m", "a")
    desk.begin(0, 1, "a")
    desk.at(102.5)
    assert desk.tell(ev.ItemAsked(J, 0, "m")) == [StopLease("a", J, 1, 1), lease("m", 1, 2)]


# Copies


def stalled(*, stall_factor: float = 3.0) -> Desk:
    """``a`` and ``b`` need 2 s for an item; since 104 ``b`` is idle and ``a`` is at work on item 2."""
    desk = Desk("a", "b", slots=1)
    desk.pull(3, "a", "b", stall_factor=stall_factor)
    desk.begin(0, 1, "a")
    desk.begin(1, 1, "b")
    desk.at(102.0)
    desk.finish(0, 1, "a")
    desk.begin(2, 1, "a")
    desk.finish(1, 1, "b")
    return desk


def copied(stall_factor: float = 3.0) -> Desk:
    desk = stalled(stall_factor=stall_factor)
    assert desk.at(102.0 + 2.0 * stall_factor - 0.1) == []
    assert desk.at(102.0 + 2.0 * stall_factor + 1.0) == [lease("b", 2, 2)]
    return desk


def test_an_item_that_takes_far_longer_than_expected_is_begun_a_second_time() -> None:
    desk = copied()
    view = desk.machine.item(J, 2)
    assert view is not None
    assert (view.state, view.participant_id, view.copies) == ("running", "a", 2), "the one that is further is shown"
    assert desk.at(200.0) == [], "once is enough"


def test_the_stall_factor_is_the_users() -> None:
    copied(stall_factor=5.0)


def test_the_first_result_wins_and_the_other_is_stopped() -> None:
    desk = copied()
    desk.begin(2, 2, "b")
    assert desk.tell(finished(2, 2, "b")) == [FetchResult("b", J, 2, 2, "blob 2.2")]
    told = desk.tell(ev.ResultFetched(J, 2, 2, "b"))
    assert told[:2] == [KeepResult("b", J, 2, 2), StopLease("a", J, 2, 1)]
    assert end(told).state is JobState.DONE
    assert desk.tell(finished(2, 1, "a")) == [ReleaseResult("a", J, 2, 1, "blob 2.1")]


def test_the_slower_result_is_a_spare_until_the_first_is_here() -> None:
    desk = copied()
    desk.begin(2, 2, "b")
    desk.tell(finished(2, 1, "a"))
    assert desk.tell(finished(2, 2, "b")) == []
    assert desk.tell(ev.FetchFailed(J, 2, 1, "a", BROKEN)) == [FetchResult("b", J, 2, 2, "blob 2.2")]
    told = desk.tell(ev.ResultFetched(J, 2, 2, "b"))
    assert told[0] == KeepResult("b", J, 2, 2)
    assert ReleaseResult("a", J, 2, 1, "blob 2.1") in told


def test_a_copy_that_has_not_begun_is_stopped_as_soon_as_a_result_is_offered() -> None:
    desk = copied()
    assert desk.tell(finished(2, 1, "a")) == [StopLease("b", J, 2, 2), FetchResult("a", J, 2, 1, "blob 2.1")]


def test_a_failed_copy_costs_nothing_while_another_is_at_it() -> None:
    desk = copied()
    assert desk.tell(failed(2, 2, "b")) == []
    view = desk.machine.item(J, 2)
    assert view is not None
    assert (view.state, view.copies, view.participant_id) == ("running", 1, "a")
    assert desk.at(113.0) == [], "who failed it does not copy it again so soon"
    desk.finish(2, 1, "a")
    assert desk.state() == "done"


def test_when_nobody_else_is_left_one_that_failed_it_tries_again_and_that_counts() -> None:
    desk = copied()
    desk.tell(failed(2, 2, "b"))
    assert desk.at(116.0) == [lease("b", 2, 3)]
    assert desk.tell(failed(2, 3, "b")) == []
    assert desk.at(123.0) == []
    assert desk.at(130.0) == [lease("b", 2, 4)], "with growing pauses: a may be slow and no more"
    told = desk.tell(failed(2, 4, "b"))
    assert StopLease("a", J, 2, 1) in told
    assert end(told).state is JobState.FAILED


def test_when_the_first_of_two_goes_the_copy_leads() -> None:
    desk = copied()
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == []
    view = desk.machine.item(J, 2)
    assert view is not None
    assert (view.state, view.participant_id, view.attempt) == ("leased", "b", 2)
    assert end(desk.finish(2, 2, "b")).state is JobState.DONE


def test_a_failure_that_cannot_be_helped_ends_both() -> None:
    desk = copied()
    told = desk.tell(failed(2, 2, "b", retry=False))
    assert StopLease("a", J, 2, 1) in told
    assert end(told).state is JobState.FAILED


def test_what_will_take_much_longer_than_here_is_copied_before_it_is_late() -> None:
    desk = Desk("slow", "fast", slots=1)
    desk.pull(10, "slow", "fast")
    desk.begin(0, 1, "slow")
    for index in range(1, 9):
        desk.work(index, 1, "fast", 1.0)
    desk.finish(0, 1, "slow")  # 8 s
    assert desk.state() == "running"
    told = desk.work(9, 1, "fast", 1.0)
    assert end(told).state is JobState.DONE, "slow had left the last item to fast"
    by_progress = Desk("slow", "fast", slots=1)
    by_progress.pull(2, "slow", "fast")
    by_progress.begin(0, 1, "slow")
    by_progress.begin(1, 1, "fast")
    by_progress.at(101.0)
    by_progress.tell(ev.ItemProgressed(J, 0, 1, "slow", 0.125))
    assert leases(by_progress.finish(1, 1, "fast")) == [lease("fast", 0, 2)], "7 s are left there, 1 s is needed here"


def test_nothing_is_copied_for_a_small_gain() -> None:
    desk = Desk("a", "b", slots=1)
    desk.pull(2, "a", "b")
    desk.begin(0, 1, "a")
    desk.begin(1, 1, "b")
    desk.at(101.0)
    desk.tell(ev.ItemProgressed(J, 0, 1, "a", 0.5))
    assert leases(desk.finish(1, 1, "b")) == []
    assert desk.at(101.9) == []


def test_one_that_is_not_heard_of_is_copied_whatever_is_known() -> None:
    desk = Desk("a", "b", slots=1)
    desk.pull(1, "a", "b")
    desk.begin(0, 1, "a")
    assert desk.at(100.0 + STALL_SILENT_S) == []
    assert desk.at(102.0 + STALL_SILENT_S) == [lease("b", 0, 2)]


def test_two_at_once_are_enough() -> None:
    desk = Desk("a", "b", "c", slots=1)
    desk.pull(4, "a", "b", "c")
    for index, who in enumerate("abc"):
        desk.begin(index, 1, who)
    desk.at(102.0)
    for index, who in enumerate("abc"):
        desk.finish(index, 1, who)
    desk.begin(3, 1, "a")
    assert leases(desk.at(110.0)) == [lease("b", 3, 2)]
    desk.begin(3, 2, "b")
    assert desk.at(112.0) == []
    assert leases(desk.at(150.0)) == [lease("c", 3, 3)], "both are stuck"
    desk.begin(3, 3, "c")
    assert desk.at(400.0) == [], "everybody is at it"


def test_a_copy_needs_somebody_idle() -> None:
    desk = Desk("a", "b", slots=1)
    desk.pull(2, "a", "b")
    desk.begin(0, 1, "a")
    desk.begin(1, 1, "b")
    assert desk.at(500.0) == []
    assert desk.machine.next_deadline_s() is None, "nobody is idle: nothing is looked at"
