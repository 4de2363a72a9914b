"""Who gets an item in the state machine, rule by rule: leasing, refusals, losses and when nobody is left."""

from __future__ import annotations

import pytest
from fakes.desk import BROKEN, Desk, J, end, finished, lease
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import FetchResult, FinishJob, KeepResult, ReleaseResult, StopLease
from flotilla.jobs.model import JobState
from flotilla.jobs.selection import choose_route

# Who gets what


def test_an_item_waits_for_its_busy_participant_though_others_are_free() -> None:
    desk = Desk("a", "b", slots=1)
    assert desk.start("a", "a", participants=("a", "b")) == [lease("a", 0)]
    told = desk.tell(finished(0, 1, "a"))
    assert told == [FetchResult("a", J, 0, 1, "blob 0.1"), lease("a", 1)], "transfer must not hold the next item up"


def test_an_item_of_an_absent_participant_goes_to_the_least_loaded() -> None:
    desk = Desk("a", "b", "c", slots=2)
    desk.start("a", job_id="other")
    told = desk.start("gone", "gone", "gone", participants=("gone", "a", "b", "c"))
    assert told == [lease("b", 0), lease("c", 1), lease("a", 2)], "of equals the first named"


def test_jobs_are_served_in_the_order_of_acceptance() -> None:
    desk = Desk("a", slots=1)
    desk.plan("a", job_id="first planned")
    desk.plan("a", job_id="second planned")
    assert desk.tell(ev.JobAccepted("second planned")) == [lease("a", job_id="second planned")]
    assert desk.tell(ev.JobAccepted("first planned")) == []
    told = desk.tell(finished(0, 1, "a", "second planned"))
    assert told[-1] == lease("a", job_id="first planned")


def test_an_older_lost_item_goes_before_a_younger_waiting_one() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("a", "b")
    desk.start("b", job_id="younger")
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == []
    told = desk.tell(finished(1, 1, "b"))
    assert told[-1] == lease("b", 0, 2), "the lost item is older than what waits for b"


def test_a_burst_of_twenty_routes_spreads() -> None:
    desk = Desk("a", "b", "c", "d", slots=2)
    ids = ("a", "b", "c", "d")
    for number in range(20):
        chosen = choose_route(ids, desk.machine.load)
        desk.plan(chosen, job_id=f"j{number}", participants=ids)
    assert [desk.machine.load(who) for who in ids] == [5, 5, 5, 5]
    for number in range(20):
        desk.tell(ev.JobAccepted(f"j{number}"))
    assert [desk.machine.load(who) for who in ids] == [5, 5, 5, 5], "a reservation was lost or doubled"
    for number in range(20):
        desk.tell(ev.JobCancelled(f"j{number}", "enough"))
    assert [desk.machine.load(who) for who in ids] == [0, 0, 0, 0]
    assert desk.machine.load("stranger") == 0


def test_only_pinned_items_go_to_one_that_takes_no_others() -> None:
    desk = Desk("a")
    desk.tell(ev.ParticipantOnline("master", 1, takes_unpinned=False))
    assert desk.start("master", "master", "a", pinned=(0,)) == [lease("master", 0), lease("a", 1), lease("a", 2)]


def test_slots_that_shrink_are_filled_no_more() -> None:
    desk = Desk("a", slots=3)
    desk.start("a", "a", "a", "a")
    desk.tell(ev.ParticipantOnline("a", 1))
    assert desk.finish(0, 1, "a")[1:] == [KeepResult("a", J, 0, 1)]
    desk.finish(1, 1, "a")
    assert lease("a", 3) in desk.finish(2, 1, "a")


def test_a_participant_that_stops_taking_others_work_hands_on_what_waits_for_it() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("a", "a", participants=("a", "b"))
    assert desk.tell(ev.ParticipantOnline("a", 1, takes_unpinned=False)) == [lease("b", 1)]


# Refusal


def test_who_refuses_is_left_out_and_the_item_goes_elsewhere_uncounted() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("a", "a", max_attempts=1, participants=("a", "b"))
    assert desk.tell(ev.LeaseRefused(J, 0, 1, "a", "no such model")) == [lease("b", 0, 2)]
    assert desk.machine.job(J).left_out == {"a": "no such model"}  # type: ignore[union-attr]
    assert lease("b", 1) in desk.finish(0, 2, "b"), "what waited for the one left out goes elsewhere too"


def test_when_all_refuse_the_job_fails_and_names_each() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b", "c"), left_out={"c": "no such node"})
    desk.tell(ev.LeaseRefused(J, 0, 1, "a", "no such model"))
    told = end(desk.tell(ev.LeaseRefused(J, 0, 2, "b", "no such sampler")))
    assert told.state is JobState.FAILED
    assert told.failure is not None
    assert told.failure.kind == "nobody"
    for part in ("a was left out (no such model)", "b was left out (no such sampler)", "c was left out (no such node)"):
        assert part in told.failure.message


@pytest.mark.parametrize("loss", [ev.LeaseRefused(J, 0, 1, "a", "no"), ev.ParticipantOffline("a", "no")])
def test_a_pinned_item_is_never_moved(loss: ev.Event) -> None:
    desk = Desk("a", "b")
    desk.start("a", "b", pinned=(0,))
    told = desk.tell(loss)
    assert StopLease("b", J, 1, 1) in told
    assert end(told).state is JobState.FAILED


def test_a_pinned_item_whose_participant_is_not_there_fails_the_job_at_once() -> None:
    told = end(Desk("a").start("a", "gone", pinned=(1,)))
    assert told.failure is not None
    assert "gone is offline (it has not been seen)" in told.failure.message


def test_a_pinned_item_waiting_for_its_busy_participant_fails_when_that_goes() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("a", job_id="other")
    assert desk.start("a", pinned=(0,)) == []
    assert end(desk.tell(ev.ParticipantOffline("a", "gone"))).job_id == J


# Loss


def test_what_a_lost_participant_held_goes_elsewhere_at_once_uncounted() -> None:
    desk = Desk("a", "b", slots=3)
    desk.start("a", "a", "a", "b", max_attempts=1)
    desk.tell(ev.ItemStarted(J, 0, 1, "a"), finished(1, 1, "a"))
    told = desk.tell(ev.ParticipantOffline("a", "the connection was lost"))
    assert told == [lease("b", 0, 2), lease("b", 1, 2)], "b has two slots left"
    assert lease("b", 2, 2) in desk.finish(3, 1, "b")


def test_losses_beyond_the_limit_count_as_failures() -> None:
    desk = Desk("a", max_lost=2)
    desk.start("a", max_attempts=2)
    for _ in range(3):
        desk.tell(ev.ParticipantOffline("a", "it died"), ev.ParticipantOnline("a"))
    assert desk.state() == "running"
    told = end(desk.tell(ev.ParticipantOffline("a", "it died")))
    assert told.failure is not None
    assert told.failure.kind == "lost"


def test_a_late_result_of_an_open_item_is_taken_and_the_other_attempt_stopped() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    desk.tell(ev.ParticipantOffline("a", "gone"), ev.ParticipantOnline("a"))
    assert desk.tell(finished(0, 1, "a")) == [StopLease("b", J, 0, 2), FetchResult("a", J, 0, 1, "blob 0.1")]
    assert end(desk.tell(ev.ResultFetched(J, 0, 1, "a"))).state is JobState.DONE
    assert desk.tell(finished(0, 2, "b")) == [ReleaseResult("b", J, 0, 2, "blob 0.2")]


def test_a_late_result_is_kept_as_a_spare_while_another_is_brought_over() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    desk.tell(ev.ParticipantOffline("a", "gone"), ev.ParticipantOnline("a"), finished(0, 2, "b"))
    assert desk.tell(finished(0, 1, "a")) == []
    told = desk.tell(ev.FetchFailed(J, 0, 2, "b", BROKEN))
    assert told == [FetchResult("a", J, 0, 1, "blob 0.1")], "the spare is better than running it again"
    told = desk.tell(ev.ResultFetched(J, 0, 1, "a"))
    assert told == [
        KeepResult("a", J, 0, 1),
        ReleaseResult("b", J, 0, 2, "blob 0.2"),
        FinishJob(J, JobState.DONE, None),
    ]


def test_a_late_result_of_an_item_that_nobody_has_yet_is_taken_too() -> None:
    desk = Desk("a")
    desk.start("a")
    desk.tell(ev.ParticipantOffline("a", "gone"))
    assert desk.tell(finished(0, 1, "a")) == [], "it cannot be fetched from where nobody is"
    desk.tell(ev.ParticipantOnline("a", 0))
    assert desk.tell(finished(0, 1, "a")) == [FetchResult("a", J, 0, 1, "blob 0.1")]
    assert desk.machine.next_deadline_s() is None


def test_a_result_that_arrives_from_one_that_seemed_gone_counts() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    desk.tell(finished(0, 1, "a"), ev.ParticipantOffline("a", "gone"))
    told = desk.tell(ev.ResultFetched(J, 0, 1, "a"))
    assert told == [
        KeepResult("a", J, 0, 1),
        StopLease("b", J, 0, 2),
        FinishJob(J, JobState.DONE, None),
    ]


def test_a_lost_attempt_is_stopped_when_its_participant_is_back_and_nobody_needs_it() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b")
    desk.tell(ev.ParticipantOffline("a", "gone"), ev.ParticipantOnline("a"))
    assert desk.tell(ev.ItemProgressed(J, 0, 1, "a", 0.5)) == [], "it may go on: whoever is first wins"
    assert StopLease("a", J, 0, 1) in desk.finish(0, 2, "b")
    assert desk.tell(ev.ItemStarted(J, 0, 1, "a")) == [StopLease("a", J, 0, 1)], "it has not heard"


def test_a_lost_attempt_that_has_not_begun_is_dropped_when_its_participant_is_back() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    held = ev.LeaseHeld(J, 0, 1, "a")
    assert desk.tell(held) == []
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == [lease("b", attempt=2)]
    desk.tell(ev.ParticipantOnline("a"))
    assert desk.tell(held) == [StopLease("a", J, 0, 1)]


# Nobody left


def test_when_nobody_else_is_left_the_fallback_gets_all_that_waits_once_it_is_ready() -> None:
    desk = Desk("a", "m")
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.start("m", "a", "a", pinned=(0,), participants=("m", "a"), fallback="m")
    desk.tell(ev.ParticipantOffline("a", "gone"))
    desk.now_s += 60.0
    assert desk.tell(ev.TimePassed()) == []
    assert desk.state() == "running"
    ask = ev.ItemAsked(J, 0, "m")
    assert desk.tell(ask) == [lease("m", 1, 2)]
    assert desk.tell(ask) == [lease("m", 2, 2)]
    desk.finish(0, 1, "m")
    desk.finish(1, 2, "m")
    assert end(desk.finish(2, 2, "m")).state is JobState.DONE


def test_a_lost_participant_is_waited_for_before_the_fallback_is_asked() -> None:
    desk = Desk("a")
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.start("a", fallback="m")
    desk.tell(ev.ItemAsked(J, 0, "m"), ev.ParticipantOffline("a", "gone"))
    assert desk.at(101.0) == []
    assert desk.tell(ev.ParticipantOnline("a")) == [lease("a", 0, 2)]
    desk.tell(ev.ParticipantOffline("a", "gone again"))
    assert desk.at(200.0) == [lease("m", 0, 3)]


def test_a_fallback_that_cannot_run_it_either_ends_the_job() -> None:
    desk = Desk("a")
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.start("a", fallback="m")
    desk.tell(ev.ItemAsked(J, 0, "m"))
    desk.tell(ev.LeaseRefused(J, 0, 1, "a", reason="no model"))
    told = desk.tell(ev.LeaseRefused(J, 0, 2, "m", reason="no model here"))
    failure = end(told).failure
    assert failure is not None
    assert "no model here" in failure.message


def test_nobody_left_waits_a_while_for_a_lost_one_to_come_back() -> None:
    desk = Desk("a", wait_for_return_s=5.0)
    desk.start("a", participants=("a", "never"))
    assert desk.machine.next_deadline_s() is None
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == []
    assert desk.machine.next_deadline_s() == 105.0
    desk.now_s = 104.0
    assert desk.tell(ev.TimePassed()) == []
    assert desk.tell(ev.ParticipantOnline("a")) == [lease("a", 0, 2)]
    assert desk.machine.next_deadline_s() is None
    desk.tell(ev.ParticipantOffline("a", "gone again"))
    desk.now_s = 109.0
    told = end(desk.tell(ev.TimePassed()))
    assert told.failure is not None
    assert "a is offline (gone again); never is offline (it has not been seen)" in told.failure.message
    assert desk.machine.next_deadline_s() is None


def test_one_that_went_long_ago_is_not_waited_for() -> None:
    desk = Desk("a", wait_for_return_s=5.0)
    desk.tell(ev.ParticipantOffline("a", "gone"))
    desk.now_s += 5.0
    assert end(desk.start("a")).state is JobState.FAILED


def test_the_reason_for_being_offline_can_be_told_without_ever_being_online() -> None:
    desk = Desk()
    desk.plan("a")
    desk.tell(ev.ParticipantOffline("a", "wrong fleet key"), ev.ParticipantOffline("stranger", "who"))
    told = end(desk.tell(ev.JobAccepted(J)))
    assert told.failure is not None
    assert "a is offline (wrong fleet key)" in told.failure.message
