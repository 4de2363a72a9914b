"""The rules of the state machine, one by one."""

from __future__ import annotations

import json

import pytest
from flotilla.jobs import events as ev
from flotilla.jobs.instructions import (
    FetchResult,
    FinishJob,
    Instruction,
    ItemChanged,
    ReleaseResult,
    SendLease,
    StopLease,
)
from flotilla.jobs.machine import Machine
from flotilla.jobs.model import Failure, JobState
from flotilla.jobs.selection import choose_route
from flotilla.utils.errors import Conflict, InvalidInput

BROKEN = Failure("error", "it broke", traceback="Traceback ...", node_id="7", node_type="Breaker")
J = "job"


class Desk:
    """A machine with its clock; every call checks the books."""

    def __init__(self, *online: str, slots: int = 2, **settings: float) -> None:
        self.machine = Machine(**settings)  # type: ignore[arg-type]
        self.now_s = 100.0
        for participant_id in online:
            self.tell(ev.ParticipantOnline(participant_id, slots))

    def tell(self, *told: ev.Event) -> list[Instruction]:
        """The instructions of these events, without the notes of changed items."""
        out: list[Instruction] = []
        for event in told:
            out += self.machine.handle(event, self.now_s)
            self.machine.validate()
        return [instruction for instruction in out if not isinstance(instruction, ItemChanged)]

    def plan(self, *planned_for: str, job_id: str = J, pinned: tuple[int, ...] = (), **plan: object) -> None:
        participants = plan.pop("participants", None) or tuple(dict.fromkeys(planned_for))
        specs = tuple(ev.ItemSpec(index, who, index in pinned) for index, who in enumerate(planned_for))
        self.tell(ev.JobPlanned(job_id, specs, participants, **plan))  # type: ignore[arg-type]

    def start(self, *planned_for: str, job_id: str = J, **plan: object) -> list[Instruction]:
        self.plan(*planned_for, job_id=job_id, **plan)  # type: ignore[arg-type]
        return self.tell(ev.JobAccepted(job_id))

    def finish(self, index: int, attempt: int, who: str) -> list[Instruction]:
        return self.tell(finished(index, attempt, who), ev.ResultFetched(J, index, attempt, who))

    def state(self, job_id: str = J) -> str:
        job = self.machine.job(job_id)
        assert job is not None
        return job.state


def finished(index: int, attempt: int, who: str, job_id: str = J) -> ev.ItemFinished:
    return ev.ItemFinished(job_id, index, attempt, who, result=f"blob {index}.{attempt}")


def failed(index: int, attempt: int, who: str, *, retry: bool = True) -> ev.ItemFailed:
    return ev.ItemFailed(J, index, attempt, who, failure=BROKEN, retry=retry)


def lease(who: str, index: int = 0, attempt: int = 1, job_id: str = J) -> SendLease:
    return SendLease(who, job_id, index, attempt)


def end(told: list[Instruction]) -> FinishJob:
    assert isinstance(told[-1], FinishJob)
    return told[-1]


# From plan to done


def test_a_job_goes_from_plan_to_done() -> None:
    desk = Desk("a", "b")
    desk.plan("a", "b")
    assert desk.state() == "planned"
    assert desk.tell(ev.JobAccepted(J)) == [lease("a", 0), lease("b", 1)]
    assert desk.tell(ev.ItemStarted(J, 1, 1, "b")) == []
    assert desk.tell(finished(1, 1, "b")) == [FetchResult("b", J, 1, 1, "blob 1.1")]
    assert desk.tell(ev.ResultFetched(J, 1, 1, "b")) == [ReleaseResult("b", J, 1, 1, "blob 1.1")]
    told = desk.finish(0, 1, "a")
    assert told[-1] == FinishJob(J, JobState.DONE, None)
    desk.tell(ev.JobGathered(J))
    desk.machine.forget(J)
    assert desk.machine.job(J) is None


def test_a_job_without_items_is_done_at_once() -> None:
    assert Desk().start() == [FinishJob(J, JobState.DONE, None)]


def test_what_cannot_be_planned_is_refused_and_leaves_nothing() -> None:
    desk = Desk("a")
    twice = (ev.ItemSpec(0, "a"), ev.ItemSpec(0, "a"))
    with pytest.raises(InvalidInput, match="twice"):
        desk.machine.handle(ev.JobPlanned(J, twice, ("a",)), 0.0)
    with pytest.raises(InvalidInput, match="attempt"):
        desk.machine.handle(ev.JobPlanned(J, (), ("a",), max_attempts=0), 0.0)
    assert desk.machine.job(J) is None


def test_only_an_ended_and_gathered_job_can_be_forgotten() -> None:
    desk = Desk("a")
    desk.start("a")
    with pytest.raises(Conflict):
        desk.machine.forget(J)
    desk.finish(0, 1, "a")
    with pytest.raises(Conflict):
        desk.machine.forget(J)
    desk.tell(ev.JobGathered(J))
    desk.machine.forget(J)
    desk.machine.forget("never heard of")
    assert list(desk.machine.job_ids()) == []


def test_changed_items_are_told_once_and_only_when_something_shows() -> None:
    desk = Desk("a")
    desk.start("a")
    progress = ev.ItemProgressed(J, 0, 1, "a", 0.5, "KSampler")
    assert desk.machine.handle(progress, 1.0) == [ItemChanged(J, 0)]
    assert desk.machine.handle(progress, 1.0) == []
    assert desk.machine.handle(ev.ItemProgressed(J, 0, 1, "a", 0.4, "late"), 1.0) == []
    assert desk.machine.handle(ev.ItemProgressed(J, 0, 1, "a", float("nan")), 1.0) == []
    view = desk.machine.item(J, 0)
    assert view is not None
    assert (view.state, view.fraction, view.label, view.participant_id) == ("running", 0.5, "KSampler", "a")
    desk.tell(ev.ItemProgressed(J, 0, 1, "a", 7.0))
    view = desk.machine.item(J, 0)
    assert view is not None
    assert view.fraction == 1.0


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
    assert desk.finish(0, 1, "a")[1:] == [ReleaseResult("a", J, 0, 1, "blob 0.1")]
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
    assert {type(one) for one in told} == {ReleaseResult, FinishJob}
    assert {one.participant_id for one in told if isinstance(one, ReleaseResult)} == {"a", "b"}


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
        ReleaseResult("a", J, 0, 1, "blob 0.1"),
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


# Nobody left


def test_a_lost_attempt_that_has_not_begun_is_dropped_when_its_participant_is_back() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    held = ev.LeaseHeld(J, 0, 1, "a")
    assert desk.tell(held) == []
    assert desk.tell(ev.ParticipantOffline("a", "gone")) == [lease("b", attempt=2)]
    desk.tell(ev.ParticipantOnline("a"))
    assert desk.tell(held) == [StopLease("a", J, 0, 1)]


def test_when_nobody_else_is_left_the_fallback_gets_all_that_waits_once_it_is_ready() -> None:
    desk = Desk("a", "m")
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.start("m", "a", "a", pinned=(0,), participants=("m", "a"), fallback="m")
    desk.tell(ev.ParticipantOffline("a", "gone"))
    desk.now_s += 60.0
    assert desk.tell(ev.TimePassed()) == []
    assert desk.state() == "running"
    assert desk.tell(ev.FallbackReady(J)) == [lease("m", 1, 2), lease("m", 2, 2)]
    desk.finish(0, 1, "m")
    desk.finish(1, 2, "m")
    assert end(desk.finish(2, 2, "m")).state is JobState.DONE


def test_a_lost_participant_is_waited_for_before_the_fallback_is_asked() -> None:
    desk = Desk("a")
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.start("a", fallback="m")
    desk.tell(ev.FallbackReady(J), ev.ParticipantOffline("a", "gone"))
    desk.now_s += 1.0
    assert desk.tell(ev.TimePassed()) == []
    assert desk.tell(ev.ParticipantOnline("a")) == [lease("a", 0, 2)]
    desk.tell(ev.ParticipantOffline("a", "gone again"))
    desk.now_s += 60.0
    assert desk.tell(ev.TimePassed()) == [lease("m", 0, 3)]


def test_a_fallback_that_cannot_run_it_either_ends_the_job() -> None:
    desk = Desk("a")
    desk.tell(ev.ParticipantOnline("m", slots=9, takes_unpinned=False))
    desk.start("a", fallback="m")
    desk.tell(ev.FallbackReady(J))
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


# Failure


def test_a_failed_item_is_retried_elsewhere_then_fails_the_job_with_the_cause() -> None:
    desk = Desk("a", "b", "c")
    desk.start("a", "c", participants=("a", "b", "c"))
    assert desk.tell(failed(0, 1, "a")) == [lease("b", 0, 2)]
    assert desk.tell(failed(0, 2, "b")) == [lease("c", 0, 3)]
    told = desk.tell(failed(0, 3, "c"))
    assert StopLease("c", J, 1, 1) in told
    assert end(told).failure == Failure("error", "it broke", "Traceback ...", "7", "Breaker", "c")
    assert [desk.machine.item(J, index).state for index in (0, 1)] == ["failed", "cancelled"]  # type: ignore[union-attr]


def test_a_failure_that_cannot_be_helped_is_not_retried() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"))
    assert end(desk.tell(failed(0, 1, "a", retry=False))).state is JobState.FAILED


def test_one_that_failed_it_may_try_again_when_no_other_is_left() -> None:
    desk = Desk("a")
    desk.start("a", max_attempts=2)
    assert desk.tell(failed(0, 1, "a")) == [lease("a", 0, 2)]
    assert end(desk.tell(failed(0, 2, "a"))).state is JobState.FAILED


def test_one_that_failed_it_gets_it_again_when_the_last_other_goes() -> None:
    desk = Desk("a", "b", slots=1)
    desk.start("b", job_id="other")
    desk.start("a", participants=("a", "b"))
    assert desk.tell(failed(0, 1, "a")) == [], "b is merely busy"
    assert desk.tell(ev.ParticipantOffline("b", "gone")) == [lease("a", 0, 2)]


def test_a_result_that_cannot_be_brought_over_is_a_counted_failure() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"), max_attempts=2)
    desk.tell(finished(0, 1, "a"))
    assert desk.tell(ev.FetchFailed(J, 0, 1, "a", BROKEN)) == [lease("b", 0, 2)]
    assert desk.tell(finished(0, 1, "a")) == [], "offered again, it does not displace the work that goes on"
    desk.tell(finished(0, 2, "b"))
    told = desk.tell(ev.FetchFailed(J, 0, 2, "b", BROKEN))
    assert {one for one in told if isinstance(one, ReleaseResult)} == {
        ReleaseResult("a", J, 0, 1, "blob 0.1"),
        ReleaseResult("b", J, 0, 2, "blob 0.2"),
    }
    failure = end(told).failure
    assert failure is not None
    assert (failure.kind, failure.participant_id) == ("transfer", "b")


# Ends


def test_cancel_stops_every_live_lease_and_releases_every_result() -> None:
    desk = Desk("a", "b")
    desk.start("a", "a", "b", "a")
    desk.tell(ev.ItemStarted(J, 0, 1, "a"), finished(2, 1, "b"))
    told = desk.tell(ev.JobCancelled(J, "stopped by hand"))
    assert told == [
        StopLease("a", J, 0, 1),
        StopLease("a", J, 1, 1),
        ReleaseResult("b", J, 2, 1, "blob 2.1"),
        FinishJob(J, JobState.CANCELLED, Failure("cancelled", "stopped by hand")),
    ]
    assert desk.tell(finished(0, 1, "a")) == [ReleaseResult("a", J, 0, 1, "blob 0.1")]
    assert desk.tell(ev.ResultFetched(J, 2, 1, "b"), ev.JobCancelled(J, "again"), ev.JobAccepted(J)) == []
    assert desk.tell(ev.ItemProgressed(J, 1, 1, "a", 0.5)) == [StopLease("a", J, 1, 1)]


@pytest.mark.parametrize(
    ("event", "state"),
    [
        (ev.JobDropped(J, "no such node"), "dropped"),
        (ev.JobCancelled(J, "stopped"), "cancelled"),
        (ev.PromptEnded(J), "cancelled"),
    ],
)
def test_a_planned_job_can_end_before_it_starts(event: ev.Event, state: str) -> None:
    desk = Desk("a")
    desk.plan("a")
    assert end(desk.tell(event)).state.value == state
    assert desk.tell(ev.JobAccepted(J), event) == []
    assert desk.machine.load("a") == 0


def test_the_end_of_the_prompt_ends_an_open_job_and_leaves_a_done_one() -> None:
    desk = Desk("a")
    desk.start("a")
    told = end(desk.tell(ev.PromptEnded(J)))
    assert told.state is JobState.CANCELLED
    assert told.failure is not None
    assert told.failure.message == "The prompt ended without needing it."
    other = Desk("a")
    other.start("a")
    other.finish(0, 1, "a")
    assert other.tell(ev.PromptEnded(J)) == []
    assert other.state() == "done"


# What nobody knows


def test_what_nobody_knows_does_no_harm() -> None:
    desk = Desk("a", "b")
    desk.start("a")
    for job_id, index, attempt, who in (
        ("?", 0, 1, "a"),
        (J, 9, 1, "a"),
        (J, 0, 0, "a"),
        (J, 0, 2, "a"),
        (J, 0, 1, "b"),
    ):
        where = (job_id, index, attempt, who)
        before = desk.machine.job(J)
        assert desk.tell(ev.ItemStarted(*where)) == [StopLease(who, job_id, index, attempt)]
        assert desk.tell(ev.ItemFinished(*where, result=1)) == [ReleaseResult(who, job_id, index, attempt, 1)]
        assert desk.tell(failed(index, attempt, who) if job_id == J else ev.JobAccepted(job_id)) == []
        assert desk.tell(ev.ResultFetched(*where), ev.FetchFailed(*where, failure=BROKEN)) == []
        assert desk.tell(ev.LeaseRefused(*where, reason="no")) == []
        assert desk.machine.job(J) == before
    assert desk.tell(ev.JobGathered("?"), ev.JobCancelled("?", ""), ev.JobDropped("?", ""), ev.PromptEnded("?")) == []
    assert desk.machine.item("?", 0) is None


def test_the_same_said_twice_changes_nothing() -> None:
    desk = Desk("a", "b")
    desk.start("a", "b")
    said = (ev.ItemStarted(J, 0, 1, "a"), finished(0, 1, "a"), ev.ResultFetched(J, 0, 1, "a"))
    for event in said:
        desk.tell(event)
        before = desk.machine.job(J)
        again = desk.tell(event)
        assert desk.machine.job(J) == before
        assert again == []
    assert desk.tell(said[0]) == []
    assert desk.tell(said[1]) == [ReleaseResult("a", J, 0, 1, "blob 0.1")], "offered again: it has not heard"
    desk.plan("a", "a", "a")
    assert len(desk.machine.job(J).items) == 2  # type: ignore[union-attr]


def test_a_view_is_plain_json_and_tells_the_whole_story() -> None:
    desk = Desk("a", "b")
    desk.start("a", participants=("a", "b"), left_out={"c": "no such model"})
    desk.tell(ev.ItemStarted(J, 0, 1, "a"), failed(0, 1, "a"))
    view = desk.machine.job(J)
    assert view is not None
    told = json.loads(json.dumps(view.to_json()))
    assert told["state"] == "running"
    assert told["left_out"] == {"c": "no such model"}
    item = told["items"][0]
    assert (item["state"], item["participant_id"], item["attempt"]) == ("leased", "b", 2)
    assert [attempt["state"] for attempt in item["attempts"]] == ["failed", "leased"]
    assert item["attempts"][0]["error"] == {**BROKEN.to_json(), "participant_id": "a"}
    assert item["attempts"][0]["started_s"] == 100.0
    desk.finish(0, 2, "b")
    assert desk.machine.item(J, 0).participant_id == "b"  # type: ignore[union-attr]
