"""Partial jobs, rests, kept results and later lives of a job."""

from __future__ import annotations

import pytest
from fakes.desk import BROKEN, Desk, J, end, failed, fetches, finished, lease, leases
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, KeepResult, ParticipantChanged, ReleaseResult, StopLease
from flotilla.jobs.model import Failure, JobState
from flotilla.utils.errors import InvalidInput

PARTIAL = frozenset({0})

# Partial


def test_a_partial_job_ends_without_what_failed_and_says_so() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b", participants=("a", "b"), partial_groups=PARTIAL, max_attempts=1)
    assert desk.tell(failed(0, 1, "a")) == []
    assert desk.state() == "running"
    told = end(desk.finish(1, 1, "b"))
    assert told.state is JobState.PARTIAL
    assert told.failure == Failure("partial", "1 of 2 items are missing: item 0 (it broke).")
    view = desk.machine.job(J)
    assert view is not None
    assert view.missing == (0,)
    assert view.items[0].error == Failure("error", "it broke", "Traceback ...", "7", "Breaker", "a", 1)


def test_what_is_missing_is_told_in_bounds() -> None:
    desk = Desk("a", slots=100)
    desk.start(*["a"] * 50, partial_groups=PARTIAL, max_attempts=1)
    for index in range(49):
        told = desk.tell(ev.ItemFailed(J, index, 1, "a", Failure("error", "x" * 5_000)))
        assert told == []
    failure = end(desk.finish(49, 1, "a")).failure
    assert failure is not None
    assert failure.message.startswith("49 of 50 items are missing: item 0 (xxx")
    assert failure.message.endswith("and 44 more.")
    assert len(failure.message) < 2_000


def test_a_stage_of_which_nothing_came_fails_the_job() -> None:
    desk = Desk("a")
    desk.start("a", "a", groups=(0, 1), partial_groups=frozenset({0, 1}), max_attempts=1)
    told = end(desk.tell(failed(0, 1, "a")))
    assert told.state is JobState.FAILED
    assert told.failure is not None
    assert told.failure.message == "it broke"


def test_only_groups_that_may_be_partial_are() -> None:
    desk = Desk("a", slots=5)
    desk.start("a", "a", "a", groups=(0, 0, 1), partial_groups=PARTIAL, max_attempts=1)
    assert desk.tell(failed(0, 1, "a")) == []
    assert end(desk.tell(failed(2, 1, "a"))).state is JobState.FAILED


def test_a_pinned_item_that_fails_fails_a_partial_job_too() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b", pinned=(0,), partial_groups=PARTIAL, max_attempts=1)
    desk.finish(1, 1, "b")
    assert end(desk.tell(failed(0, 1, "a"))).state is JobState.FAILED


def test_when_nobody_is_left_a_partial_job_ends_with_what_there_is() -> None:
    desk = Desk("a", slots=1)
    desk.start("a", "a", "a", partial_groups=PARTIAL)
    desk.finish(0, 1, "a")
    desk.tell(ev.ParticipantOffline("a", "gone"))
    told = end(desk.at(110.0))
    assert told.state is JobState.PARTIAL
    assert desk.machine.job(J).missing == (1, 2)  # type: ignore[union-attr]


# Kept results


@pytest.mark.parametrize("release", [True, False])
def test_results_of_a_failed_job_are_kept_until_it_is_forgotten(release: bool) -> None:
    desk = Desk("a", "b")
    desk.start("a", "b", max_attempts=1)
    assert KeepResult("b", J, 1, 1) in desk.finish(1, 1, "b")
    told = desk.tell(failed(0, 1, "a"), ev.JobGathered(J))
    assert not [one for one in told if isinstance(one, ReleaseResult)]
    assert desk.tell(finished(1, 1, "b")) == [KeepResult("b", J, 1, 1)], "offered again after a reconnection"
    kept = [ReleaseResult("b", J, 1, 1, "blob 1.1")] if release else []
    assert desk.tell(ev.JobForgotten(J, release)) == kept
    assert desk.tell(finished(1, 1, "b")) == [ReleaseResult("b", J, 1, 1, "blob 1.1")], "nobody knows the job"


def test_results_of_a_cancelled_job_are_released_at_once() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b")
    desk.finish(1, 1, "b")
    assert ReleaseResult("b", J, 1, 1, "blob 1.1") in desk.tell(ev.JobCancelled(J, "enough"))
    assert desk.tell(ev.JobForgotten(J)) == []


def test_a_result_offered_again_while_the_job_runs_is_to_be_kept_with_its_new_whereabouts() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b")
    desk.finish(1, 1, "b")
    assert desk.tell(ev.ItemFinished(J, 1, 1, "b", "moved")) == [KeepResult("b", J, 1, 1)]
    desk.finish(0, 1, "a")
    assert ReleaseResult("b", J, 1, 1, "moved") in desk.tell(ev.JobGathered(J))


# Later lives


def resumed(*online: str, before: int = 2) -> Desk:
    desk = Desk(*online)
    desk.plan("a", "b", spec={"attempts_before": before}, participants=("a", "b"))
    return desk


def test_attempts_of_a_later_life_count_on() -> None:
    desk = resumed("a", "b")
    assert desk.tell(ev.JobAccepted(J)) == [lease("a", 0, 3), lease("b", 1, 3)]
    assert desk.tell(ev.ItemStarted(J, 0, 2, "a")) == [StopLease("a", J, 0, 2)], "what an earlier life began"
    assert desk.tell(ev.LeaseHeld(J, 0, 1, "b")) == [StopLease("b", J, 0, 1)]
    with pytest.raises(InvalidInput, match="negative"):
        resumed(before=-1)


def test_old_results_are_fetched_instead_of_running_the_item() -> None:
    desk = resumed("a", "b")
    assert desk.tell(finished(0, 1, "b"), finished(0, 1, "b")) == []
    assert desk.machine.item(J, 0).state == "waiting"  # type: ignore[union-attr]
    assert desk.tell(ev.JobAccepted(J)) == [FetchResult("b", J, 0, 1, "blob 0.1"), lease("b", 1, 3)]
    assert desk.tell(ev.ResultFetched(J, 0, 1, "b"))[0] == KeepResult("b", J, 0, 1)


def test_an_old_result_that_comes_late_displaces_what_has_not_begun() -> None:
    desk = resumed("a", "b")
    desk.tell(ev.JobAccepted(J))
    assert desk.tell(finished(0, 2, "b")) == [StopLease("a", J, 0, 3), FetchResult("b", J, 0, 2, "blob 0.2")]
    assert desk.tell(finished(0, 3, "b")) == [ReleaseResult("b", J, 0, 3, "blob 0.3")], "no such attempt of b"


def test_an_old_result_that_does_not_come_is_no_failure_of_the_item() -> None:
    desk = Desk("a", "b")
    desk.plan("a", spec={"attempts_before": 1}, participants=("a", "b"), max_attempts=1)
    desk.tell(finished(0, 1, "b"))
    assert fetches(desk.tell(ev.JobAccepted(J))) == [FetchResult("b", J, 0, 1, "blob 0.1")]
    assert leases(desk.tell(ev.FetchFailed(J, 0, 1, "b", BROKEN))) == [lease("a", 0, 2)]
    assert desk.machine.participant("b").failures_in_row == 0  # type: ignore[union-attr]
    assert end(desk.finish(0, 2, "a")).state is JobState.DONE


def test_an_old_result_of_one_that_is_away_does_not_hold_the_item_up() -> None:
    desk = resumed("a", "b")
    desk.tell(finished(0, 1, "c"), ev.JobAccepted(J))
    assert desk.machine.item(J, 0).state == "leased"  # type: ignore[union-attr]
    told = desk.finish(0, 3, "a")
    assert ReleaseResult("c", J, 0, 1, "blob 0.1") in told


def test_a_job_that_is_known_is_not_planned_again() -> None:
    desk = Desk("a")
    desk.start("a", max_attempts=1)
    desk.tell(failed(0, 1, "a"))
    desk.plan("a", "a")
    assert desk.state() == "failed"
    desk.tell(ev.JobForgotten(J, release=False))
    assert desk.start("a", spec={"attempts_before": 1}) == [lease("a", 0, 2)]


# Rest


def tired(*others: str) -> Desk:
    """``a`` has failed three items in a row at 100."""
    desk = Desk("a", *others, slots=9)
    desk.start("a", "a", "a", "a", "a", participants=("a", *others), max_attempts=2)
    for index in range(3):
        desk.tell(failed(index, 1, "a"))
    return desk


def person(desk: Desk, who: str = "a") -> tuple[str, str, float | None, int]:
    view = desk.machine.participant(who)
    assert view is not None
    return (view.state, view.reason, view.resting_until_s, view.failures_in_row)


def test_one_that_fails_three_items_in_a_row_rests_and_says_why() -> None:
    desk = tired("b")
    assert person(desk) == ("resting", "rests for 5 s after 3 failures in a row, last: it broke", 105.0, 3)
    assert [desk.machine.item(J, index).participant_id for index in (3, 4)] == ["b", "b"]  # type: ignore[union-attr]
    assert desk.start("a", job_id="next", participants=("a", "b"))[0].participant_id == "b"  # type: ignore[union-attr]
    desk.at(105.0)
    assert person(desk) == ("online", "", None, 3)


def test_the_change_is_told_once() -> None:
    desk = Desk("a", "b", slots=9)
    desk.start("a", "a", "a", "b")
    desk.tell(failed(0, 1, "a"), failed(1, 1, "a"))
    told = desk.machine.handle(failed(2, 1, "a"), 100.0)
    assert told.count(ParticipantChanged("a")) == 1
    assert desk.machine.handle(ev.TimePassed(), 105.0).count(ParticipantChanged("a")) == 1
    assert desk.machine.handle(ev.ParticipantOffline("b", "gone"), 105.0).count(ParticipantChanged("b")) == 1


def test_what_runs_when_the_rest_begins_is_finished() -> None:
    desk = Desk("a", "b", slots=9)
    desk.start(*["a"] * 5, "b")
    desk.begin(3, 1, "a")
    desk.tell(failed(0, 1, "a"), failed(1, 1, "a"))
    told = desk.tell(failed(2, 1, "a"))
    assert StopLease("a", J, 4, 1) in told
    assert lease("b", 4, 2) in told
    assert StopLease("a", J, 3, 1) not in told
    assert FetchResult("a", J, 3, 1, "blob 3.1") in desk.tell(finished(3, 1, "a"))
    desk.tell(ev.ResultFetched(J, 3, 1, "a"))
    assert person(desk) == ("online", "", None, 0), "it delivered: all is forgiven"


def test_rests_grow_and_after_each_one_item_is_tried() -> None:
    desk = tired("b")
    rests = []
    for number in range(8):
        until_s = person(desk)[2]
        assert until_s is not None
        rests.append(until_s - desk.now_s)
        desk.at(until_s)
        desk.start("a", job_id=f"probe {number}", participants=("a", "b"))
        desk.tell(ev.ItemFailed(f"probe {number}", 0, 1, "a", BROKEN))
    assert rests == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


def test_the_same_item_failing_again_is_no_further_strike() -> None:
    desk = Desk("a", "b")
    desk.tell(ev.ParticipantOffline("b", "gone"))
    desk.start("a", participants=("a", "b"), max_attempts=9)
    for attempt in range(1, 5):
        desk.tell(failed(0, attempt, "a"))
    assert person(desk)[::3] == ("online", 1)


def test_items_that_failed_everywhere_are_forgiven() -> None:
    desk = Desk("a", "b", slots=9)
    desk.start("a", "a", "a", "b", max_attempts=2, partial_groups=PARTIAL)
    for index in range(3):
        desk.tell(failed(index, 1, "a"))
    assert person(desk)[0] == "resting"
    desk.tell(failed(0, 2, "b"))
    assert person(desk)[::3] == ("online", 2), "the item was to blame"


def test_the_only_one_of_a_job_does_not_rest() -> None:
    desk = tired()
    assert person(desk)[::3] == ("online", 3)


def test_a_job_whose_only_participant_rests_waits_for_the_end_of_the_rest() -> None:
    desk = tired("b")
    desk.tell(ev.JobCancelled(J, "enough"))
    assert desk.start("a", job_id="lonely", participants=("a",)) == []
    assert desk.at(104.9) == []
    assert desk.at(105.0) == [lease("a", 0, job_id="lonely")]


def test_going_away_ends_a_rest_but_not_the_memory_of_failures() -> None:
    desk = tired("b")
    desk.tell(ev.ParticipantOnline("a", 9))
    assert person(desk)[0] == "resting", "told again that it is online, it still rests"
    desk.tell(ev.ParticipantOffline("a", "gone"), ev.ParticipantOnline("a", 9))
    assert person(desk) == ("online", "", None, 3)


def test_losses_and_refusals_are_no_strikes() -> None:
    desk = Desk("a", "b", slots=9)
    desk.start(*["a"] * 6, participants=("a", "b"))
    for index in range(3):
        desk.tell(ev.LeaseRefused(J, index, 1, "a", "no model"))
    desk.tell(ev.ParticipantOffline("a", "gone"), ev.ParticipantOnline("a", 9))
    assert person(desk)[3] == 0


# The master's prompt


def test_a_prompt_that_failed_fails_its_job_and_keeps_what_is_finished() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b")
    desk.finish(0, 1, "a")
    told = desk.tell(ev.PromptEnded(J, BROKEN))
    assert end(told).state is JobState.FAILED
    assert end(told).failure == BROKEN
    assert StopLease("b", J, 1, 1) in told
    assert not [one for one in told if isinstance(one, ReleaseResult)]


def test_a_prompt_that_failed_before_any_work_began_needs_its_job_no_more() -> None:
    desk = Desk("a")
    desk.plan("a")
    assert end(desk.tell(ev.PromptEnded(J, BROKEN))).state is JobState.CANCELLED
